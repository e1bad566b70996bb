"""The count of instructions: listings, loops and their trips; the counts, registers and local memory that are kept."""

from __future__ import annotations

import re
from collections import Counter
from functools import cache

import pytest

from bench.kernels import issue, sass
from bench.kernels.frequencies import UndeclaredLoopError, count, regions
from bench.kernels.issue import COUNTED
from gpusift.devices import MAX_REGISTERS
from tests.support import nvrtc

H100 = next(gpu for gpu in COUNTED if gpu.name == "H100")
ARCHITECTURES = {gpu.architecture: gpu for gpu in COUNTED}

LISTING = """
.text.f:
	//## File "/somewhere/a.cu", line 2
        /*0000*/                   S2R R0, SR_TID.X ;
.L_x_1:
	//## File "/somewhere/b.cuh", line 7 inlined at "/somewhere/a.cu", line 4
	//## File "/somewhere/a.cu", line 4
        /*0010*/                   LDG.E R2, desc[UR4][R2.64] ;
        /*0020*/                   FADD R3, R2, R3 ;
	//## File "/somewhere/a.cu", line 3
        /*0030*/              @!P0 BRA `(.L_x_1) ;
        /*0040*/                   EXIT ;
        /*0050*/                   NOP;
"""


@cache
def rows_of(architecture):
    return issue.rows(ARCHITECTURES[architecture])


def code(*instructions):
    """Instructions of (operation, line) or (operation, line, number of the instruction that it branches to)."""
    return [
        sass.Instruction(16 * i, one[0], (("a.cu", one[1]),), 16 * one[2] if len(one) > 2 else None)
        for i, one in enumerate(instructions)
    ]


def test_a_listing_is_parsed():
    (instructions,) = sass.parsed(LISTING).values()
    assert [one.operation for one in instructions] == ["S2R", "LDG", "FADD", "BRA", "EXIT"]
    assert [one.kind for one in instructions] == ["integer", "memory", "float", "control", "control"]
    assert instructions[1].lines == instructions[2].lines == (("b.cuh", 7), ("a.cu", 4))
    assert instructions[3].lines == (("a.cu", 3),)
    assert sass.loops(instructions) == [sass.Loop(0x10, 0x30)]


SOURCE = {
    "a.cu": """void f() {
    for (int row = 0; row < n;
         ++row) {
        for (int col = 0; col < n; ++col) g(col);
        if (row == 0)
            for (int i = 0; i < 3; ++i) h(i);
        else {
            g(0);
        }
    }
}
"""
}


@pytest.mark.parametrize(
    ("piece", "lines", "is_loop"),
    [
        ("for (int row", (2, 10), True),
        ("for (int col", (4, 4), True),
        ("if (row == 0)", (5, 6), False),
        ("else {", (7, 9), False),
        ("void f", (1, 11), False),
    ],
)
def test_a_region_is_a_statement_with_what_it_governs(piece, lines, is_loop):
    (region,) = regions(SOURCE, {f"a.cu: {piece}": 2})
    assert ((region.first, region.last), region.is_loop) == (lines, is_loop)


def test_a_declaration_that_fits_no_line_is_refused():
    with pytest.raises(UndeclaredLoopError, match=r"no line of a\.cu has 'while'"):
        regions(SOURCE, {"a.cu: while": 2})


DECLARED = {"a.cu: for (int row": 5, "a.cu: for (int col": 10, "a.cu: if (row == 0)": 0.25}


def test_instructions_run_as_often_as_the_loops_and_branches_around_them():
    program = code(("S2R", 1), ("IADD3", 2), ("LDG", 4), ("BRA", 4, 2), ("LDS", 5), ("BRA", 2, 1), ("EXIT", 11))
    outside, rows, cols = count(program, regions(SOURCE, DECLARED), "f")
    assert outside.total == Counter(integer=1, control=1)
    assert rows.times == 5
    assert rows.total == Counter(integer=5, shared=1.25, control=5)
    assert cols.total == Counter(memory=50, control=50)


def test_what_was_moved_out_of_a_loop_runs_as_often_as_where_it_is():
    outside, _ = count(code(("LDG", 4), ("FADD", 4), ("BRA", 4, 1)), regions(SOURCE, DECLARED), "f")
    assert outside.total == Counter(memory=1)


def test_an_unrolled_loop_makes_fewer_turns_and_its_remainder_none():
    four_at_once = [*4 * [("LDG", 4)], ("BRA", 4, 1)]
    program = code(("IADD3", 2), *four_at_once, ("LDG", 4), ("BRA", 4, 6), ("BRA", 2, 0))
    loops = count(program, regions(SOURCE, DECLARED), "f")
    assert sum(loop.total["memory"] for loop in loops) == 50
    assert sorted(loop.times for loop in loops) == [0, 1, 5, 50 / 4]


def test_a_loop_without_declared_trips_is_refused():
    with pytest.raises(UndeclaredLoopError, match=r"a\.cu:1"):
        count(code(("LDG", 1), ("BRA", 1, 0)), regions(SOURCE, DECLARED), "f")


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_only_kernels_of_limited_registers_use_local_memory_in_float32(architecture):
    assert {row.kernel for row in rows_of(architecture) if row.figures.stack} <= set(MAX_REGISTERS)


def kept(section, version):
    """The rows of a kept table, by their first cell: the table whose head begins with `section`."""
    text = issue.KEPT.read_text()
    of_version = text[text.index(f"## By NVRTC {version}") :]
    lines = of_version[of_version.index(f"| {section} |") :].split("\n\n")[0].splitlines()
    head, _, *found = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {row[0]: dict(zip(head, row)) for row in found}


@pytest.fixture
def version():
    """The installed NVRTC's version; skips where the kept tables are of others, as compilers differ."""
    installed = nvrtc.version()
    if f"## By NVRTC {installed}" not in issue.KEPT.read_text():
        pytest.skip(f"bench/results/issue.md has no table of NVRTC {installed}")
    return installed


def test_the_hot_loops_are_as_short_as_the_kept_table_says(version):
    table = kept("millions of warps' instructions", version)
    issued = {row.name: row.total / 1e6 for row in rows_of(H100.architecture)}
    assert set(table) == set(issued), "the kernels have changed: run python -m bench.kernels.issue --write"
    assert {name: total for name, total in issued.items() if total > 1.02 * float(table[name]["all"]) + 0.01} == {}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_registers_allow_the_occupancy_that_the_kept_table_says(architecture, version):
    gpu, table = ARCHITECTURES[architecture], kept("kernel | threads", version)
    for row in rows_of(architecture):
        stated = int(re.search(r"(\d+)%", table[row.name][gpu.name])[1])
        assert round(100 * issue.occupancy(row, gpu).share) >= stated, f"{row.name} on {gpu.name}"
