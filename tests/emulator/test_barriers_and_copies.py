"""mbarriers step by step, cp.async, bulk copies, and both between the blocks of a cluster."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from cnnkernels import _emulator
from helpers.emulated.launches import MODES, launch
from helpers.instructions.ptx import kernel

MEMORY = ".shared .align 128 .b8 memory[4096]; .shared .align 8 .b64 barrier[2];\n"
WAIT = "WAIT{0}: mbarrier.try_wait.parity.shared::cta.b64 %p1, [barrier], {1}; @!%p1 bra WAIT{0};"


def run(body: str, *tensors: torch.Tensor, threads: int = 1, **options: Any) -> None:
    names = ["out", "x"][: len(tensors)]
    start = "mov.u32 %r90, %tid.x; setp.eq.u32 %p8, %r90, 0; mov.u32 %r91, memory; mov.u32 %r92, barrier;\n"
    ptx = kernel(start + body, parameters=names, outside=MEMORY)
    launch(ptx, "test", list(tensors), block=(threads, 1, 1), **options)


def test_an_mbarrier_step_by_step():
    """What test_wait says of both parities after each step."""
    steps = [
        ("mbarrier.init.shared::cta.b64 [barrier], 3;", (0, 1)),
        ("mbarrier.arrive.shared::cta.b64 _, [barrier];", (0, 1)),
        ("mbarrier.arrive.expect_tx.shared::cta.b64 _, [barrier], 32;", (0, 1)),
        ("mbarrier.arrive.shared::cta.b64 _, [barrier], 1;", (0, 1)),  # 32 bytes are to come
        ("mbarrier.complete_tx.relaxed.cta.shared::cta.b64 [barrier], 16;", (0, 1)),
        ("mbarrier.complete_tx.relaxed.cta.shared::cta.b64 [barrier], 16;", (1, 0)),
        ("mbarrier.expect_tx.relaxed.cta.shared::cta.b64 [barrier], 8;", (1, 0)),
        ("mbarrier.arrive_drop.shared::cta.b64 _, [barrier];", (1, 0)),  # two are left for the next phases
        ("mbarrier.arrive.shared::cta.b64 _, [barrier], 2;", (1, 0)),
        ("mbarrier.complete_tx.relaxed.cta.shared::cta.b64 [barrier], 8;", (0, 1)),
        ("mbarrier.arrive.shared::cta.b64 _, [barrier], 2;", (1, 0)),
    ]
    body = ""
    for i, (step, _) in enumerate(steps):
        body += step + "\n"
        for parity in (0, 1):
            body += f"mbarrier.test_wait.parity.shared::cta.b64 %p{parity}, [barrier], {parity};"
            body += f"selp.b32 %r{parity}, 1, 0, %p{parity}; st.global.u32 [%out + {8 * i + 4 * parity}], %r{parity};\n"
    out = torch.zeros(2 * len(steps), dtype=torch.int32)
    run(body, out, late=False)
    assert out.view(-1, 2).tolist() == [list(found) for _, found in steps]


def test_the_state_of_an_mbarrier():
    """An arrival returns the state before it: how many were to come, and which phase a wait is for."""
    body = """
      mbarrier.init.shared::cta.b64 [barrier], 3;
      mbarrier.arrive.shared::cta.b64 %d1, [barrier];
      mbarrier.arrive.shared::cta.b64 %d2, [barrier], 2;
      mbarrier.pending_count.b64 %r1, %d1; mbarrier.pending_count.b64 %r2, %d2;
      st.global.u32 [%out], %r1; st.global.u32 [%out + 4], %r2;
      mbarrier.test_wait.shared::cta.b64 %p1, [barrier], %d1; selp.b32 %r3, 1, 0, %p1; st.global.u32 [%out + 8], %r3;
      mbarrier.arrive.shared::cta.b64 %d3, [barrier];
      mbarrier.test_wait.shared::cta.b64 %p1, [barrier], %d3; selp.b32 %r3, 1, 0, %p1; st.global.u32 [%out + 12], %r3;
    """
    out = torch.zeros(4, dtype=torch.int32)
    run(body, out)
    assert out.tolist() == [3, 2, 1, 0]


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("mbarrier.arrive.shared::cta.b64 _, [barrier];", "no mbarrier was initialised"),
        ("mbarrier.init.shared::cta.b64 [barrier], 0;", "with 0 arrivals"),
        ("mbarrier.init.shared::cta.b64 [barrier], 1; mbarrier.init.shared::cta.b64 [barrier], 1;", "not invalidated"),
        ("mbarrier.init.shared::cta.b64 [barrier], 1; st.shared.u32 [barrier], 5;"
         " mbarrier.arrive.shared::cta.b64 _, [barrier];", "was overwritten"),
        ("mbarrier.init.shared::cta.b64 [barrier], 1; mbarrier.arrive.shared::cta.b64 _, [barrier], 2;",
         "2 arrivals, and only 1"),
        ("mbarrier.init.shared::cta.b64 [barrier], 1; mbarrier.arrive.noComplete.shared::cta.b64 %d1, [barrier], 1;",
         "noComplete"),
        ("mbarrier.init.shared::cta.b64 [barrier], 1; mbarrier.arrive.expect_tx.shared::cta.b64 _, [barrier], 16;",
         "16 bytes from what it was told"),
        ("mbarrier.init.shared::cta.b64 [barrier], 1;" + WAIT.format(0, 0), "deadlock"),
        ("mbarrier.init.shared::cta.b64 [barrier], 1; mbarrier.inval.shared::cta.b64 [barrier];"
         " mbarrier.arrive.shared::cta.b64 _, [barrier];", "no mbarrier was initialised"),
    ],
)  # fmt: skip
def test_what_an_mbarrier_refuses(body, why):
    with pytest.raises(_emulator.EmulatorFault, match=why):
        run(body)


@pytest.mark.parametrize("mode", MODES)
def test_cp_async_fills_with_zeros(mode):
    """16 bytes each: all; 5 of them; none, by their number; none, by a predicate; 8 of 8."""
    body = """
      setp.eq.u32 %p2, %r90, 0; mov.u32 %r1, 5; mov.u32 %r2, 0;
      cp.async.cg.shared.global [memory], [%x], 16;
      cp.async.cg.shared.global [memory + 16], [%x + 16], 16, %r1;
      cp.async.ca.shared.global [memory + 32], [%x + 32], 16, %r2;
      cp.async.cg.shared.global.L2::128B [memory + 48], [%x + 48], 16, %p2;
      cp.async.ca.shared.global [memory + 64], [%x + 64], 8;
      cp.async.commit_group; cp.async.wait_group 0;
    """
    for i in range(18):
        body += f"ld.shared.u32 %r3, [memory + {4 * i}]; st.global.u32 [%out + {4 * i}], %r3;\n"
    x, out = torch.arange(1, 81, dtype=torch.uint8), torch.zeros(72, dtype=torch.uint8)
    run(body, out, x, **mode)
    expected = x[:72].clone()
    expected[21:64] = 0
    assert torch.equal(out, expected)


def test_groups_of_cp_async_are_waited_for_in_order():
    """Late, the second of two groups is not there before it is waited for."""
    copies = "".join(
        f"cp.async.ca.shared.global [memory + {4 * i}], [%x + {4 * i}], 4; cp.async.commit_group;\n" for i in (0, 1)
    )
    first = "cp.async.wait_group 1; ld.shared.u32 %r1, [memory]; st.global.u32 [%out], %r1;\n"
    second = "ld.shared.u32 %r1, [memory + 4]; st.global.u32 [%out + 4], %r1;"
    x, out = torch.tensor([7, 8], dtype=torch.int32), torch.zeros(2, dtype=torch.int32)
    run(f"{copies} {first} cp.async.wait_all; {second}", out, x)
    assert out.tolist() == [7, 8]
    with pytest.raises(_emulator.EmulatorFault, match="nothing has written"):
        run(f"{copies} {first} {second}", out, x)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("form", "arrivals"), [(".noinc", 33), ("", 1)])
def test_cp_async_arrives_at_an_mbarrier(mode, form, arrivals):
    """Of 32 threads; without .noinc each adds the arrival that it makes."""
    body = f"""
      @%p8 mbarrier.init.shared::cta.b64 [barrier], {arrivals}; bar.sync 0;
      mul.wide.u32 %d1, %r90, 4; add.u64 %d2, %d1, %x; mad.lo.u32 %r1, %r90, 4, %r91;
      cp.async.ca.shared.global [%r1], [%d2], 4;
      cp.async.mbarrier.arrive{form}.shared::cta.b64 [barrier];
      bar.warp.sync -1; @%p8 mbarrier.arrive.shared::cta.b64 _, [barrier];
      {WAIT.format(0, 0)}
      xor.b32 %r1, %r1, 64; ld.shared.u32 %r2, [%r1]; add.u64 %d2, %d1, %out; st.global.u32 [%d2], %r2;
    """
    x, out = torch.arange(32, dtype=torch.int32), torch.zeros(32, dtype=torch.int32)
    run(body, out, x, threads=32, **mode)
    assert torch.equal(out, x.view(2, 16).flip(0).reshape(-1))


@pytest.mark.parametrize("mode", MODES)
def test_bulk_copies_and_reductions(mode):
    body = f"""
      mbarrier.init.shared::cta.b64 [barrier], 1;
      mbarrier.arrive.expect_tx.shared::cta.b64 _, [barrier], 64;
      cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [memory], [%x], 64, [barrier];
      {WAIT.format(0, 0)}
      cp.async.bulk.global.shared::cta.bulk_group [%out], [memory], 64;
      cp.async.bulk.commit_group; cp.async.bulk.wait_group 0;
      cp.reduce.async.bulk.global.shared::cta.bulk_group.add.f32 [%out], [memory], 32;
      cp.async.bulk.commit_group; cp.async.bulk.wait_group 0;
    """
    x, out = torch.arange(16, dtype=torch.float32), torch.zeros(16)
    run(body, out, x, **mode)
    assert torch.equal(out, torch.where(torch.arange(16) < 8, 2 * x, x))


CLUSTER = """
  mov.u32 %r1, %cluster_ctarank; setp.eq.u32 %p3, %r1, 0; xor.b32 %r2, %r1, 1;
  mbarrier.init.shared::cta.b64 [barrier], 2; fence.mbarrier_init.release.cluster;
  barrier.cluster.arrive.release.aligned; barrier.cluster.wait.acquire.aligned;
"""
END = "barrier.cluster.arrive.release.aligned; barrier.cluster.wait.acquire.aligned;"


@pytest.mark.parametrize("mode", MODES)
def test_blocks_of_a_cluster_tell_each_other(mode):
    """Each block sends its rank to the other by st.async, and arrives there; block 0 copies to both."""
    body = f"""{CLUSTER}
      mapa.shared::cluster.u32 %r3, %r92, %r2; mapa.shared::cluster.u32 %r4, %r91, %r2;
      mbarrier.arrive.expect_tx.shared::cta.b64 _, [barrier], 36;
      st.async.shared::cluster.mbarrier::complete_tx::bytes.u32 [%r4 + 64], %r1, [%r3];
      mbarrier.arrive.release.cluster.shared::cluster.b64 _, [%r3];
      mov.u16 %h1, 3;
      @%p3 cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster
        [memory], [%x], 32, [barrier], %h1;
      {WAIT.format(0, 0)}
      ld.shared.u32 %r5, [memory + 64]; ld.shared.u32 %r6, [memory + 28];
      mul.wide.u32 %d1, %r1, 8; add.u64 %d1, %d1, %out; st.global.u32 [%d1], %r5; st.global.u32 [%d1 + 4], %r6;
      {END}
    """
    x, out = torch.arange(8, dtype=torch.int32), torch.zeros(4, dtype=torch.int32)
    run(body, out, x, grid=(2, 1, 1), cluster=(2, 1, 1), **mode)
    assert out.tolist() == [1, 7, 0, 7]


def test_a_block_must_not_end_before_others_are_done_with_it():
    """Without the last barrier nothing says that the other block's store comes before this one's end."""
    body = f"""{CLUSTER}
      mapa.shared::cluster.u32 %r4, %r91, %r2; st.shared::cluster.u32 [%r4], 1;
    """
    run(body + END, grid=(2, 1, 1), cluster=(2, 1, 1))
    for mode in MODES:
        with pytest.raises(_emulator.EmulatorFault, match=r"ends, and nothing says|has ended"):
            run(body, grid=(2, 1, 1), cluster=(2, 1, 1), **mode)


def test_copies_refuse_what_is_not_aligned():
    x = torch.zeros(64, dtype=torch.int32)
    for body, why in [
        ("cp.async.ca.shared.global [memory + 2], [%x], 4;", "align"),
        ("cp.async.ca.shared.global [memory], [%x + 2], 4;", "align"),
        ("cp.async.bulk.global.shared::cta.bulk_group [%x], [memory], 24;", "multiple of 16"),
        ("cp.async.bulk.global.shared::cta.bulk_group [%x + 8], [memory], 16;", "align"),
    ]:
        with pytest.raises(_emulator.EmulatorFault, match=why):
            run(body, x, x)
