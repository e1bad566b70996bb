"""Names that meet the sink's own files, or another image's result: each has its result, or a failure that stays."""

from __future__ import annotations

from pathlib import Path

import pytest

from gpusift.sinks import RefusedImageError, open_sink
from tests.support.sink_writer import OUTPUTS, SETTINGS, SHAPE, check, features_of

pytest.importorskip("pyarrow", reason="needs pyarrow: pip install pyarrow")
pytest.importorskip("pycolmap", reason="needs pycolmap: pip install pycolmap")

# Pairs of which one may be in the place of the other's result, or of the sink's own files.
MEETING = [
    ("a.png", "a.png.npz/b.png"),
    ("a", "a/image_size"),
    ("a", "a/keypoints/b"),
    ("a", "a/descriptors"),
    ("a?.png", "a\udcff.png"),
    ("A.png", "a.png"),
    ("gpusift", "gpusift_cameras"),
    (".gpusift.pending/1", "b"),
    ("failures.jsonl/x", "failures.jsonl"),
    ("gpusift.json", "gpusift.json/x"),
    (".gpusift.lock/x", "_gpusift.json/x"),
    ("part-00000001", "_journal-00000001"),
]
LEAVING = ["../x", "/x", "a/../../x", "", ".", "a//b", "a/./b", "C:/x", "a\nb", "\x1b[2J", "x" * 300]


@pytest.fixture(params=OUTPUTS)
def output(request, quick_path) -> Path:
    return quick_path / "in" / request.param


@pytest.mark.parametrize("commit", [False, True], ids=["one commit", "two commits"])
@pytest.mark.parametrize("turned", [False, True], ids=["", "turned"])
@pytest.mark.parametrize("names", MEETING, ids=map(ascii, MEETING))
def test_each_has_its_own_result_or_a_failure_that_stays(output, names, turned, commit):
    failed = set()
    for _ in range(2):  # the second run finds what the first one left
        sink = open_sink(output, SETTINGS)
        for name in reversed(names) if turned else names:
            if name in sink or name in sink.failures:
                continue
            try:
                sink.write(name, features_of(name), SHAPE)
            except RefusedImageError as error:
                failed.add(name)
                sink.failures.add(name, name, str(error))
            if commit:
                sink.commit()
        sink.close()
        assert set(check(output)) == set(names) - failed
        sink = open_sink(output, SETTINGS)
        assert {name for name in names if name in sink.failures} == failed
        assert {name for name in names if name in sink} == set(names) - failed
        sink.close()
    assert len(failed) < 2


@pytest.mark.parametrize("name", LEAVING, ids=ascii)
def test_a_name_that_leaves_the_folder_or_a_terminal_obeys_is_refused(output, name):
    sink = open_sink(output, SETTINGS)
    with pytest.raises(RefusedImageError, match="a name must"):
        sink.write(name, features_of("a"), SHAPE)
    sink.write("a", features_of("a"), SHAPE)
    sink.close()
    assert set(check(output)) == {"a"}
    assert [path.name for path in output.parent.parent.iterdir()] == ["in"]


@pytest.mark.parametrize("content", [b"", b"precious", None], ids=["empty", "foreign", "folder"])
def test_only_a_result_of_its_own_kind_is_done(quick_path, content):
    output = quick_path / "folder"
    open_sink(output, SETTINGS).close()
    if content is None:
        (output / "a.npz").mkdir()
    else:
        (output / "a.npz").write_bytes(content)
    sink = open_sink(output, SETTINGS)
    assert "a" not in sink
    with pytest.raises(RefusedImageError, match="something else has the name of its result"):
        sink.write("a", features_of("a"), SHAPE)
    sink.close()
    assert content is None or (output / "a.npz").read_bytes() == content
