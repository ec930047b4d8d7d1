#include "emulator/profile/python.h"

namespace cnnkernels::emulator {

namespace py = pybind11;

py::dict as_dict(const Profile& profile) {
  py::list rows, touched;
  for (const Profile::Row& row : profile.rows) {
    const Counted& counted = row.counted;
    py::dict d;
    d["opcode"] = row.opcode;
    d["line"] = row.line;
    d["source_file"] = row.source_file;
    d["source_line"] = row.source_line;
    d["kind"] = row.kind;
    d["issue_slots"] = counted.warps * static_cast<std::uint64_t>(row.issue_slots);
    d["warps"] = counted.warps;
    d["threads"] = counted.threads;
    d["shared_requests"] = counted.shared_requests;
    d["least_wavefronts"] = counted.least_wavefronts;
    d["wavefronts"] = counted.wavefronts;
    d["streamed_wavefronts"] = counted.streamed_wavefronts;
    d["global_requests"] = counted.global_requests;
    d["sectors"] = counted.sectors;
    d["wanted_bytes"] = counted.wanted_bytes;
    d["l2_sectors"] = counted.l2_sectors;
    d["bulk_read"] = counted.bulk_read;
    d["bulk_written"] = counted.bulk_written;
    d["bulk_filled"] = counted.bulk_filled;
    d["multiply_adds"] = counted.multiply_adds;
    rows.append(d);
  }
  for (const Touched& range : profile.touched)
    touched.append(py::make_tuple(range.range.begin, range.range.bytes, range.read, range.written));
  py::dict d;
  d["clusters"] = profile.clusters;
  d["sampled"] = profile.sampled;
  d["rows"] = rows;
  d["touched"] = touched;
  return d;
}

}  // namespace cnnkernels::emulator
