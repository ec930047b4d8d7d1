"""The profiler's counts of copies in bulk and of TMA: bytes, sectors, what is filled in, and where it lands."""

from __future__ import annotations

import pytest
import torch

from cnnkernels.emulator.profile import Profile
from helpers.emulated.launches import tiled_map
from helpers.instructions.profile import aligned, profile_text, row
from helpers.instructions.ptx import HEADER

START = """{header}
.shared .align 1024 .b8 memory[8192]; .shared .align 8 .b64 barrier;
.visible .entry test(.param .align 64 .b8 map[128], .param .u64 data)
{{
  .reg .pred %p<4>; .reg .b32 %r<20>; .reg .b64 %d<9>; .reg .b16 %h<4>;
  mov.u32 %r1, %tid.x; setp.eq.u32 %p1, %r1, 0;
  ld.param.u64 %d2, [data]; mov.b64 %d1, map; cvta.param.u64 %d1, %d1;
  mov.u32 %r2, memory; mad.lo.u32 %r3, %r1, 256, %r2; add.u32 %r4, %r3, 256;
FILL: st.shared.b64 [%r3], 0; add.u32 %r3, %r3, 8; setp.lt.u32 %p2, %r3, %r4; @%p2 bra FILL;
  @%p1 mbarrier.init.shared::cta.b64 [barrier], 1; fence.proxy.async.shared::cta; bar.sync 0;
  barrier.cluster.arrive.aligned; barrier.cluster.wait.aligned;
  mov.s32 %r10, {column}; mov.s32 %r11, {line};
"""
WAIT = """
WAIT: mbarrier.try_wait.parity.shared::cta.b64 %p3, [barrier], 0; @!%p3 bra WAIT;
  barrier.cluster.arrive.aligned; barrier.cluster.wait.aligned; ret;
}}
"""
LOAD = (
    START
    + """
  @%p1 mbarrier.arrive.expect_tx.shared::cta.b64 _, [barrier], {bytes};
  @%p1 cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes
    [memory], [%d1, {{%r10, %r11}}], [barrier];
"""
    + WAIT
)
MULTICAST = (
    START
    + """
  mov.u32 %r12, %cluster_ctarank; setp.eq.and.u32 %p2, %r12, 0, %p1; mov.u16 %h1, 3;
  @%p1 mbarrier.arrive.expect_tx.shared::cta.b64 _, [barrier], {bytes};
  barrier.cluster.arrive.aligned; barrier.cluster.wait.aligned;
  @%p2 cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.multicast::cluster
    [memory], [%d1, {{%r10, %r11}}], [barrier], %h1;
"""
    + WAIT
)
STORE = (
    START
    + """
  @%p1 cp.async.bulk.tensor.2d.global.shared::cta.tile.bulk_group [%d1, {{%r10, %r11}}], [memory];
  cp.async.bulk.commit_group; cp.async.bulk.wait_group 0; ret;
}}
"""
)
RUN = (
    START
    + """
  @%p1 mbarrier.arrive.expect_tx.shared::cta.b64 _, [barrier], {bytes};
  @%p1 cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [memory], [%d2], {bytes}, [barrier];
WAIT: mbarrier.try_wait.parity.shared::cta.b64 %p3, [barrier], 0; @!%p3 bra WAIT;
  @%p1 cp.async.bulk.global.shared::cta.bulk_group [%d2], [memory], {bytes};
  cp.async.bulk.commit_group; cp.async.bulk.wait_group 0; ret;
}}
"""
)
BOX = [8, 16]  # rows of 64 bytes


def counts(template: str, column: int = 0, line: int = 0, blocks: int = 1) -> Profile:
    """Of a box in 32 rows of 64 numbers."""
    image = aligned(32 * 64, torch.float32).view(32, 64)
    text = template.format(header=HEADER, column=column, line=line, bytes=512)
    how = {"grid": (blocks, 1, 1), "cluster": (blocks, 1, 1)}
    return profile_text(text, tiled_map(image, BOX, 0), image, **how)


@pytest.mark.parametrize(
    ("column", "line", "inside", "sectors"),
    [(0, 0, 512, 16), (4, 0, 512, 24), (56, 0, 256, 8), (0, 28, 256, 8), (-4, -2, 6 * 48, 12), (100, 0, 0, 0)],
)
def test_boxes_that_are_loaded(column: int, line: int, inside: int, sectors: int) -> None:
    """Partly outside of the tensor, too: all of a box goes into shared memory."""
    found = row(counts(LOAD, column, line), "cp.async.bulk.tensor")
    assert (found["bulk_read"], found["bulk_filled"], found["l2_sectors"]) == (inside, 512 - inside, sectors)
    assert found["streamed_wavefronts"] == 4


def test_a_box_for_two_blocks_leaves_l2_once() -> None:
    found = row(counts(MULTICAST, blocks=2), "cp.async.bulk.tensor")
    assert (found["bulk_read"], found["l2_sectors"], found["streamed_wavefronts"]) == (512, 16, 8)


@pytest.mark.parametrize(("column", "written", "sectors"), [(0, 512, 16), (56, 256, 8)])
def test_boxes_that_are_stored(column: int, written: int, sectors: int) -> None:
    profile = counts(STORE, column)
    found = row(profile, "cp.async.bulk.tensor")
    assert (found["bulk_written"], found["bulk_read"], found["bulk_filled"]) == (written, 0, 0)
    assert (found["l2_sectors"], found["streamed_wavefronts"]) == (sectors, 4)
    assert [(t.read, t.written) for t in profile.touched] == [(0, written)]


def test_runs_of_bytes_both_ways() -> None:
    profile = counts(RUN)
    there, back = [
        row for row in profile.rows if row["opcode"].startswith(("cp.async.bulk.shared", "cp.async.bulk.gl"))
    ]
    assert (there["bulk_read"], there["bulk_written"], there["l2_sectors"], there["streamed_wavefronts"]) == (
        512,
        0,
        16,
        4,
    )
    assert (back["bulk_read"], back["bulk_written"], back["l2_sectors"], back["streamed_wavefronts"]) == (0, 512, 16, 4)
    assert [(t.read, t.written) for t in profile.touched] == [(512, 512)]
