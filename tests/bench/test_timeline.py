"""The timeline of a run: what is read from a log, and that a batch is one upload, one computation and one download."""

from collections import Counter

import pytest

from bench.jobs import timeline
from bench.jobs.timeline import LateCpu, LoggedCuda, Piece

PIECES = [
    Piece("upload", 1, 10.0, 11.0),
    Piece("compute", 1, 11.0, 14.0),
    Piece("upload", 2, 12.0, 13.0),
    Piece("compute", 2, 13.0, 15.0),
    Piece("download", 1, 14.0, 15.0),
    Piece("download", 2, 19.0, 20.0),
]


def test_what_is_read_from_a_log():
    assert timeline.busy(PIECES) == pytest.approx(0.4)
    assert timeline.overlapping(PIECES) == 2
    assert timeline.overlapping(PIECES[:2]) == 0
    upload, compute, download = timeline.picture(PIECES)
    assert upload.startswith("upload   |1")
    assert compute.count("2") > 0
    assert download.endswith("2|")
    assert {len(line) for line in (upload, compute, download)} == {len("upload   ||") + timeline.WIDTH}


@pytest.mark.parametrize("kind", ["one shape", "mixed"])
def test_a_batch_is_copied_and_computed_at_once(device, kind):
    shapes = timeline.shapes_of(kind, 9, (60, 80))
    assert len(set(shapes)) == (1 if kind == "one shape" else 3)
    pieces = timeline.logged(LateCpu() if device == "cpu" else LoggedCuda(), shapes, 3)
    engines = {batch: Counter() for batch in {piece.batch for piece in pieces}}
    for piece in pieces:
        engines[piece.batch][piece.engine] += 1
    assert 3 <= len(engines) <= 9
    assert all(counts == dict.fromkeys(timeline.ENGINES, 1) for counts in engines.values())
