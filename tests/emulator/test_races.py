"""What nobody waited for is a Fault that names both lines, in whatever order it ran; put right, the same kernel passes.

Each body has `//!` before what orders it: the test takes those lines away one by one.
"""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch

from cnnkernels import _emulator
from helpers.emulated.launches import MODES, launch, tiled_map
from helpers.instructions.ptx import HEADER

REGISTERS = ".reg .pred %p<9>; .reg .b32 %r<40>; .reg .b64 %d<20>; .reg .f32 %f<40>;"
SHARED = ".shared .align 1024 .b8 memory[8192]; .shared .align 8 .b64 barrier[4];"
WAIT = "{{ WAIT{0}: mbarrier.try_wait.parity.shared::cta.b64 %p1, [barrier + {1}], {2}; @!%p1 bra WAIT{0}; }}"

# warp 0 is thread 0's; %r1 is the thread, %p8 true in thread 0, %d1 a tensor map, %d2 global memory
START = """
  mov.u32 %r1, %tid.x; setp.eq.u32 %p8, %r1, 0;
  ld.param.u64 %d2, [data]; mov.b64 %d1, map; cvta.param.u64 %d1, %d1;
  mov.u32 %r2, memory; shl.b32 %r3, %r1, 2; add.u32 %r4, %r2, %r3; xor.b32 %r5, %r3, 128; add.u32 %r6, %r2, %r5;
"""
INIT = """
  @%p8 mbarrier.init.shared::cta.b64 [barrier], 1;
  @%p8 mbarrier.init.shared::cta.b64 [barrier + 8], 64;
  //! bar.sync 0;
"""
LOAD = """
  @%p8 mbarrier.arrive.expect_tx.shared::cta.b64 _, [barrier], 1024;
  @%p8 cp.async.bulk.tensor.2d.shared::cta.global.tile.mbarrier::complete_tx::bytes [memory], [%d1, {0, 0}], [barrier];
"""

BULK_STORE = """
  @%p8 cp.async.bulk.global.shared::cta.bulk_group [%d2], [memory], 256;
  cp.async.bulk.commit_group;
"""
READ = "cp.async.bulk.wait_group.read 0;"
FENCE = "fence.proxy.async.shared::cta;"

ORDERED = {
    "st, then ld by another warp": "st.shared.u32 [%r4], %r1; //! bar.sync 0;\n ld.shared.u32 %r7, [%r6];",
    "ld, then st by another warp": """
        st.shared.u32 [%r4], %r1; bar.sync 0; ld.shared.u32 %r7, [%r6];
        //! bar.sync 0;
        st.shared.u32 [%r4], 7;""",
    "st, then ld by another lane": """
        xor.b32 %r10, %r4, 4; st.shared.u32 [%r4], %r1;
        //! bar.warp.sync -1;
        ld.shared.u32 %r7, [%r10];""",
    "ld, then st by another lane": """
        xor.b32 %r10, %r4, 4; st.shared.u32 [%r4], %r1; bar.warp.sync -1; ld.shared.u32 %r7, [%r10];
        //! bar.warp.sync -1;
        st.shared.u32 [%r4], 7;""",
    "cp.async, then ld": """
        and.b32 %r8, %r3, 112; cvt.u64.u32 %d3, %r8; add.u64 %d3, %d3, %d2; add.u32 %r9, %r2, %r8;
        @%p8 cp.async.ca.shared.global [%r9], [%d3], 4;
        cp.async.commit_group;
        //! cp.async.wait_group 0;
        @%p8 ld.shared.u32 %r7, [%r9];""",
    "mbarriers before their use": f"{INIT} mbarrier.arrive.shared::cta.b64 _, [barrier + 8];",
    "a TMA load, then ld": f"{INIT} {LOAD} //! {WAIT.format(1, 0, 0)}\n ld.shared.u32 %r7, [%r4];",
    "ld, then a TMA load": f"""
        st.shared.u32 [%r4], %r1; {INIT} ld.shared.u32 %r7, [%r4];
        mbarrier.arrive.shared::cta.b64 _, [barrier + 8];
        //! {WAIT.format(2, 8, 0)}
        {LOAD} {WAIT.format(1, 0, 0)}""",
    "st, then a TMA store": f"""
        st.shared.u32 [%r4], %r1;
        //! {FENCE}
        //! bar.sync 0;
        {BULK_STORE} {READ}""",
    "a fence by who stores": f"st.shared.u32 [%r4], %r1; bar.sync 0;\n //! {FENCE}\n {BULK_STORE} {READ}",
    "a TMA store, then st": f"""
        st.shared.u32 [%r4], %r1; {FENCE} bar.sync 0; {BULK_STORE}
        //! {READ}
        bar.sync 0; st.shared.u32 [%r4], 9; {READ}""",
}

# A race, or what it came to in the order that was run.
NOTICED = "race on|no fence.proxy.async|before its bulk copies|nothing has written|no mbarrier was initialised"


def ptx_of(body: str) -> str:
    declared = ".param .align 64 .b8 map[128], .param .u64 data"
    return f"{HEADER}{SHARED}\n.visible .entry test({declared})\n{{\n{REGISTERS}\n{START}\n{body}\n  ret;\n}}\n"


def run(body: str, **mode: Any) -> None:
    data = torch.zeros(64, 16, dtype=torch.float32)
    launch(ptx_of(body), "test", [tiled_map(data, [16, 16], 0), data], block=(64, 1, 1), **mode)


def without_each_line(body: str) -> list[str]:
    marks = [match.start() for match in re.finditer("//!", body)]
    return [body[:at] + re.sub(r"//![^\n]*", "", body[at:], count=1).replace("//!", "") for at in marks]


CASES = [
    pytest.param(name, taken, id=f"{name}, {i}")
    for name, body in ORDERED.items()
    for i, taken in enumerate(without_each_line(body))
]


@pytest.mark.parametrize("name", ORDERED)
def test_ordered_accesses_pass(name):
    for mode in MODES:
        run(ORDERED[name].replace("//!", ""), **mode)


@pytest.mark.parametrize(("name", "body"), CASES)
def test_without_what_orders_them_it_is_a_fault(name, body):
    for mode in MODES:
        with pytest.raises(_emulator.EmulatorFault, match=NOTICED):
            run(body.replace("//!", ""), **mode)


def test_a_race_names_both_lines():
    with pytest.raises(_emulator.EmulatorFault) as raised:
        run("\nst.shared.u32 [%r4], %r1;\nst.shared.u32 [%r6], 70;", late=False)
    lines = [int(line) for line in re.findall(r"\(line (\d+)\)", str(raised.value))]
    assert sorted(lines)[1] - sorted(lines)[0] == 1


def test_one_value_by_two_warps_is_no_race():
    run("st.shared.u32 [memory], 5;")
    with pytest.raises(_emulator.EmulatorFault, match="race on"):
        run("shr.u32 %r7, %r1, 5; st.shared.u32 [memory], %r7;")


def test_races_can_be_left_out():
    run("st.shared.u32 [%r4], %r1; ld.shared.u32 %r7, [%r4]; bar.sync 0; st.shared.u32 [%r6], 1;", races=False)
