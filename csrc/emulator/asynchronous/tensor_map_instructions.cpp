// tensormap.replace and tensormap.cp_fenceproxy: kernels that make or change their own maps.
#include <algorithm>
#include <array>

#include "emulator/asynchronous/families.h"
#include "emulator/asynchronous/map_fields.h"
#include "emulator/asynchronous/map_memory.h"
#include "emulator/wrong_model.h"

namespace cnnkernels::emulator {
namespace {

enum class Field : std::uint32_t {
  global_address,
  rank,
  box_dim,
  global_dim,
  global_stride,
  element_stride,
  elemtype,
  interleave_layout,
  swizzle_mode,
  fill_mode,
  count
};
constexpr std::string_view kFields[] = {
    "global_address", "rank",     "box_dim",           "global_dim",   "global_stride",
    "element_stride", "elemtype", "interleave_layout", "swizzle_mode", "fill_mode",
};
static_assert(std::size(kFields) == static_cast<std::size_t>(Field::count));

bool has_dimension(Field field) { return field >= Field::box_dim && field <= Field::element_stride; }

// PTX counts types in another order than cuTensorMapEncode.
MapType element_type(std::uint64_t value) {
  using enum MapType;
  constexpr MapType kTypes[] = {u8, u16, u32, s32, u64, s64, f16, f32, f32_ftz, f64, bf16, tf32, tf32_ftz};
  if (value >= std::size(kTypes))
    fault("tensormap.replace: element type %llu", static_cast<unsigned long long>(value));
  return kTypes[value];
}

void replace(TensorMap& map, Field field, int dimension, std::uint64_t value) {
  const auto word = static_cast<std::uint32_t>(value);
  switch (field) {
    case Field::global_address:
      map.address = value;
      break;
    case Field::rank:
      map.rank = static_cast<std::uint8_t>(word + 1);
      break;
    case Field::box_dim:
      map.box[dimension] = word;
      break;
    case Field::global_dim:
      if (!is_wrong(WrongModel::replace_ignored)) map.sizes[dimension] = word;
      break;
    case Field::global_stride:
      map.strides[dimension + 1] = value;
      break;  // of all but the innermost
    case Field::element_stride:
      map.element_strides[dimension] = word;
      break;
    case Field::elemtype:
      map.type = element_type(value);
      break;
    case Field::interleave_layout:
      if (word != 0) fault("tensormap.replace: interleaved layouts are not known");
      break;
    case Field::swizzle_mode:
      if (word > 3) fault("tensormap.replace: swizzle mode %u", word);
      map.swizzle_bytes = static_cast<std::uint8_t>(word == 0 ? 0 : 16 << word);
      break;
    case Field::fill_mode:
      map.nan_fill = word != 0;
      break;
    case Field::count:
      break;
  }
}

void execute_replace(Warp& warp, const Instruction& instruction, Mask lanes) {
  const auto field = static_cast<Field>(instruction.flags);
  for_each_lane(lanes, [&](int lane) {
    const auto bytes =
        map_bytes(warp, lane, instruction.space, address_at(warp, instruction, lane), Access::write);
    TensorMap map = decode_unfinished(bytes);
    const std::uint64_t value = instruction.type == Type::b64
                                    ? warp.lanes<std::uint64_t>(instruction.source[1])[lane]
                                    : warp.lanes<std::uint32_t>(instruction.source[1])[lane];
    replace(map, field, static_cast<int>(instruction.immediate), value);
    encode(map, bytes);
  });
}

struct CopyDetails : Details {
  Decoder::Base source;
};

// One copy by the warp; its lanes name the same addresses.
void execute_copy(Warp& warp, const Instruction& instruction, Mask lanes) {
  const auto& details = static_cast<const CopyDetails&>(*instruction.details);
  const int lane = __builtin_ctz(lanes);
  const auto from =
      map_bytes(warp, lane, Space::shared, address_at(warp, details.source, lane), Access::read);
  const auto to = map_bytes(warp, lane, Space::global, address_at(warp, instruction, lane), Access::write);
  std::ranges::copy(from, to.begin());
}

void decode_replace(Decoder& decoder, const Statement& statement, Instruction& instruction) {
  const auto* name = std::ranges::find(kFields, statement.word(3));
  if (name == std::end(kFields)) refuse(statement, "the field is not known");
  const auto field = static_cast<Field>(name - kFields);
  instruction.flags = static_cast<std::uint32_t>(field);
  instruction.space = statement.space();
  instruction.type = statement.type() == Type::b64 ? Type::b64 : Type::b32;
  decoder.address(statement, 0, instruction);
  if (has_dimension(field)) {
    instruction.immediate = decoder.number(statement, 1);
    const int last = field == Field::global_stride ? kMostDimensions - 2 : kMostDimensions - 1;
    if (instruction.immediate < 0 || instruction.immediate > last)
      refuse(statement, "there is no such dimension");
  }
  instruction.source[1] = decoder.source(statement, has_dimension(field) ? 2 : 1, instruction.type);
  instruction.execute = execute_replace;
}

}  // namespace

bool decode_tensor_map(Decoder& decoder, const Statement& statement, Instruction& instruction) {
  if (statement.word(0) != "tensormap") return false;
  if (statement.word(1) == "replace") {
    decode_replace(decoder, statement, instruction);
    return true;
  }
  if (statement.word(1) != "cp_fenceproxy") return false;
  auto details = std::make_unique<CopyDetails>();
  decoder.address(statement, 0, instruction);
  details->source = decoder.address(statement, statement.operands[1]);
  instruction.details = &decoder.keep(std::move(details));
  instruction.control = Control::warp;
  instruction.execute = execute_copy;
  return true;
}

}  // namespace cnnkernels::emulator
