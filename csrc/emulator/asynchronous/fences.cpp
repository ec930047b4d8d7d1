// fence and membar. A cluster is run by one OS thread in program order, so that fences order memory for other
// clusters alone; between proxies they are what Races asks for.
//
// Two rules of csrc/interpreter are no rules here, since working kernels of others do without: the proxy
// fence may be any thread's on the way from writer to reader, and fence.mbarrier_init is not asked for.
#include <atomic>

#include "emulator/asynchronous/families.h"

namespace cnnkernels::emulator {
namespace {

void execute_fence(Warp& warp, const Instruction&, Mask) {
  std::atomic_thread_fence(std::memory_order_seq_cst);
  if (Races* races = warp.cluster->races.get()) races->fence(warp.cluster_index);
}

void execute_proxy_fence(Warp& warp, const Instruction&, Mask) {
  if (Races* races = warp.cluster->races.get()) races->proxy_fence(warp.cluster_index);
}

}  // namespace

bool decode_fence(Decoder&, const Statement& statement, Instruction& instruction) {
  if (statement.word(0) != "fence" && statement.word(0) != "membar") return false;
  const bool between_proxies = statement.has("async") && !statement.has("global");
  instruction.execute = between_proxies ? execute_proxy_fence : execute_fence;
  return true;
}

bool decode_asynchronous(Decoder& decoder, const Statement& statement, Instruction& instruction) {
  for (const auto decode : {decode_mbarrier, decode_cp_async, decode_tensor_copy, decode_bulk_copy,
                            decode_store_async, decode_tensor_map, decode_fence}) {
    if (decode(decoder, statement, instruction)) return true;
  }
  return false;
}

}  // namespace cnnkernels::emulator
