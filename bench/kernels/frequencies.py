"""How often each instruction of a kernel runs: loops and branches of the source, and the trips declared for them.

A region is a loop, a branch or a function of a source, told by a piece of its first line. Its `times` is how often a
warp runs it for each time that it comes to it: a loop's trips, a branch's probability. What a region holds runs as
often as the product of the times of all regions around it, through all functions that were inlined. Three things
correct that for what a compiler does: an instruction that was moved out of a loop runs no more often than the loop of
the machine code that it is now in; a loop that was unrolled runs fewer turns; and what is left over beside it none.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from bench.kernels import sass
from bench.kernels.sass import Instruction, Loop


class UndeclaredLoopError(Exception):
    """A loop of the machine code whose trips nobody has declared, or a declaration that fits no line."""


@dataclass(frozen=True)
class Region:
    """Lines [first, last] of a source file, and how often they run for each time that a warp comes to them."""

    file: str
    first: int
    last: int
    times: float
    is_loop: bool

    def holds(self, line: tuple[str, int]) -> bool:
        """Return whether a line of a file is one of these."""
        return line[0] == self.file and self.first <= line[1] <= self.last


@dataclass(frozen=True)
class Counted:
    """A loop of the machine code, or a kernel's code outside of all loops, and how often a warp runs it.

    Attributes
    ----------
    name : str
        File and line of the source loop; the kernel's name for what lies outside.
    times : float
        Turns of a warp, in all.
    body : Counter of str
        Instructions of a turn by kind, each as often as it runs in a turn; not those of loops within.
    """

    name: str
    times: float
    body: Counter[str]

    @property
    def total(self) -> Counter[str]:
        """Instructions that a warp runs, by kind."""
        return Counter({kind: self.times * count for kind, count in self.body.items()})


def regions(sources: Mapping[str, str], declared: Mapping[str, float]) -> list[Region]:
    """Return the regions of some files.

    Parameters
    ----------
    sources : mapping
        Text of each file by its name.
    declared : mapping
        Times by "file: piece of the first line". A piece that several lines of the file have stands for all of them.

    Raises
    ------
    UndeclaredLoopError
        If no line of the file has the piece.
    """
    found = []
    for key, times in declared.items():
        file, piece = key.split(": ", 1)
        starts = [match.start() for match in re.finditer(re.escape(piece), sources.get(file, ""))]
        if not starts:
            raise UndeclaredLoopError(f"no line of {file} has {piece!r}, whose times are declared")
        found += [_region(file, sources[file], start, times) for start in starts]
    return found


def count(code: list[Instruction], around: list[Region], name: str) -> list[Counted]:
    """Return what a warp runs of a kernel, loop by loop; what lies outside of all loops first.

    Raises
    ------
    UndeclaredLoopError
        If the trips of a loop are not declared.
    """
    all_loops = sass.loops(code)
    inner = {instruction: _innermost(all_loops, instruction) for instruction in code}
    of_loop: dict[Loop | None, list[Instruction]] = defaultdict(list)
    for instruction in code:
        of_loop[inner[instruction]].append(instruction)
    times: dict[Loop | None, float] = {None: 1.0}
    turns = _turns(all_loops, of_loop, around)
    counted = []
    for loop in (None, *all_loops):
        if loop is not None:
            head = _head(loop, of_loop[loop], around)
            unused = any(turns[outer] == 0 for outer in all_loops if outer != loop and _encloses(outer, loop))
            times[loop] = 0.0 if unused else _product(head.chain, around) * turns[loop]
        body: Counter[str] = Counter()
        for instruction in of_loop[loop]:
            often = min(_product(instruction.lines, around), times[loop])
            if times[loop] > 0:
                body[instruction.kind] += often / times[loop]
        label = name if loop is None else f"{head.region.file}:{head.region.first}"
        counted.append(Counted(label, times[loop], body))
    return counted


@dataclass(frozen=True)
class _Head:
    """The source loop that a loop of the machine code was made of, and through which calls."""

    region: Region
    chain: tuple[tuple[str, int], ...]


def _head(loop: Loop, own: list[Instruction], around: list[Region]) -> _Head:
    """Return the source loop whose first line the branch back names, or else that of most of a loop's instructions.

    The branch back of a loop may be the exit of a loop within, at its end, and then names that one, which holds few of
    the loop's own instructions.
    """
    votes: Counter[_Head] = Counter()
    back = next((instruction for instruction in own if instruction.address == loop.last), None)
    for depth, line in enumerate(back.lines if back else ()):
        for region in around:
            if region.is_loop and (region.file, region.first) == line and _holds_most(region, own):
                return _Head(region, back.lines[depth:] if back else ())
    for instruction in own:
        for depth, line in enumerate(instruction.lines):
            within = [region for region in around if region.is_loop and region.holds(line)]
            if within:
                region = min(within, key=lambda one: one.last - one.first)
                votes[_Head(region, ((region.file, region.first), *instruction.lines[depth + 1 :]))] += 1
                break
    if not votes:
        where = next((f"{i.lines[-1][0]}:{i.lines[-1][1]}" for i in reversed(own) if i.lines), "?")
        raise UndeclaredLoopError(f"the trips of the loop at {where} are not declared in bench/kernels/trips.py")
    return votes.most_common(1)[0][0]


def _holds_most(region: Region, own: list[Instruction]) -> bool:
    return 2 * sum(any(map(region.holds, instruction.lines)) for instruction in own) >= len(own)


def _turns(
    all_loops: list[Loop], of_loop: Mapping[Loop | None, list[Instruction]], around: list[Region]
) -> dict[Loop, float]:
    """Return for each loop the part of its source loop's trips that it makes: less than 1 where it is unrolled.

    Where one source loop has become several beside each other, the largest makes all trips, as many at once as it has
    copies of what the smallest has; the others make what is left over, which is next to nothing.
    """
    kin: dict[tuple[_Head, Loop | None], list[Loop]] = defaultdict(list)
    for loop in all_loops:
        parent = next((one for one in reversed(all_loops) if one != loop and _encloses(one, loop)), None)
        kin[_head(loop, of_loop[loop], around), parent].append(loop)
    turns = {}
    for loops in kin.values():
        by_size = sorted(loops, key=lambda loop: len(of_loop[loop]))
        small, large = (_work(of_loop[loop]) for loop in (by_size[0], by_size[-1]))
        copies = round(large.total() / small.total()) if len(loops) > 1 and small.total() else 1
        turns.update(dict.fromkeys(by_size[:-1], 0.0))
        turns[by_size[-1]] = 1 / max(copies, 1)
    return turns


def _work(code: list[Instruction]) -> Counter[str]:
    """Return the loads, stores and float operations, which are those of the source whatever becomes of the rest."""
    return Counter(one.operation for one in code if one.kind in ("memory", "shared", "float"))


def _product(chain: tuple[tuple[str, int], ...], around: list[Region]) -> float:
    product = 1.0
    for region in around:
        if any(region.holds(line) for line in chain):
            product *= region.times
    return product


def _encloses(outer: Loop, inner: Loop) -> bool:
    return outer.first <= inner.first and inner.last <= outer.last


def _innermost(all_loops: list[Loop], instruction: Instruction) -> Loop | None:
    return next((loop for loop in reversed(all_loops) if loop.holds(instruction)), None)


@cache
def _region(file: str, text: str, start: int, times: float) -> Region:
    start = text.rfind("\n", 0, start) + 1
    head = text[start : text.index("\n", start)]
    is_loop = re.search(r"\b(for|while)\b", head) is not None
    is_statement = re.match(r"\s*(for|while|if)\b", head) is not None
    end = _end_of_statement(text, start) if is_statement else _closed(text, text.index("{", start), "{}")
    return Region(file, text.count("\n", 0, start) + 1, text.count("\n", 0, end) + 1, times, is_loop)


def _end_of_statement(text: str, start: int) -> int:
    """Return where a for, while or if with what it governs ends."""
    start = _closed(text, text.index("(", start), "()") + 1
    rest = re.compile(r"\s*").match(text, start)
    start = rest.end() if rest else start
    if text[start] == "{":
        return _closed(text, start, "{}")
    if re.match(r"(for|while|if)\b", text[start:]):
        return _end_of_statement(text, start)
    return text.index(";", start)


def _closed(text: str, start: int, pair: str) -> int:
    """Return where what opens at `start` closes."""
    depth = 0
    for at in range(start, len(text)):
        depth += (text[at] == pair[0]) - (text[at] == pair[1])
        if depth == 0:
            return at
    raise ValueError(f"{pair[0]} is not closed")
