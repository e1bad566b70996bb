"""Sinks: nothing lost and nothing doubled, whenever the process is killed; settings; what is refused; full disks."""

from __future__ import annotations

import errno
import json
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from gpusift import Features
from gpusift.sinks import SettingsDiffer, failures, open_sink
from tests.support import sink_writer
from tests.support.sink_writer import OUTPUTS, SETTINGS, SHAPE, check, features_of, name_of

pytest.importorskip("pyarrow", reason="needs pyarrow: pip install pyarrow")
pytest.importorskip("pycolmap", reason="needs pycolmap: pip install pycolmap")

IMAGES = 24


@pytest.fixture(params=OUTPUTS)
def output(request, quick_path) -> Path:
    return quick_path / request.param


def open_(output: Path, **options):
    return open_sink(output, SETTINGS, **options)


def write(sink, *numbers: int) -> None:
    for i in numbers:
        sink.write(name_of(i), features_of(name_of(i)), SHAPE)


def filled(output: Path, n: int = 5) -> set[str]:
    """Make a sink of a few images."""
    sink = open_(output)
    write(sink, *range(n))
    sink.close()
    return {name_of(i) for i in range(n)}


def failures_of(output: Path) -> list[str]:
    files = [*output.parent.rglob("*failures.jsonl")]
    assert len(files) <= 1
    return [record["name"] for file in files for record in failures.read(file)]


# Nothing lost, nothing doubled.


@pytest.mark.parametrize("how", ["at_line", "after"])
def test_killed_again_and_again_it_ends_as_if_it_had_not_been(output, how):
    """Lines of the program, and moments, at random; after each kill, what was committed is there and right."""
    rng, log, kills = random.Random(f"{output.name} {how}"), output.parent / "log", 0
    while True:
        moment = (
            {"at_line": rng.randrange(rng.choice((60, 600)))} if how == "at_line" else {"after": rng.uniform(0, 0.05)}
        )
        code = sink_writer.run(output, IMAGES, log=log, **(moment if kills < 25 else {}))
        assert code in (0, -9)
        check(output, log)
        if code == 0:
            break
        kills += 1
    assert kills > 1 or how == "after"
    assert set(check(output)) == sink_writer.wanted(IMAGES)
    assert sorted(failures_of(output)) == sorted(sink_writer.failed(IMAGES))
    others = {path.name for path in output.parent.rglob(".*")} | {path.name for path in output.parent.iterdir()}
    assert others <= {"log", output.name, f"{output.name}.failures.jsonl"}


def test_hdf5_killed_at_any_write_is_read_as_it_was(quick_path):
    """Plain h5py takes no notice of what follows the end, and the next process writes over it."""
    output, first, second = quick_path / "features.h5", name_of(5), name_of(3)
    sink = open_(output)
    sink.write(first, features_of(first), SHAPE)
    sink.close()
    before, codes, longer = output.read_bytes(), [], 0
    while not codes or codes[-1]:
        output.write_bytes(before)
        process = sink_writer.start(sink_writer.write_one, str(output), second, len(codes))
        process.join()
        codes.append(process.exitcode)
        longer += bool(codes[-1]) and output.stat().st_size > len(before)
        assert set(check(output)) in ({first}, {first, second})  # recovers from the journal, if there is one
        if codes[-1]:
            left = output.stat().st_size
            open_(output).close()
            assert output.stat().st_size in (len(before), left)
    assert set(codes) == {-9, 0}
    assert longer > 10
    assert set(check(output)) == {first, second}


def test_a_sink_holds_little_beside_the_features_of_a_large_image(output):
    """Counted are the bytes that Python, NumPy and pyarrow hold, not those of HDF5 and SQLite."""
    pyarrow = pytest.importorskip("pyarrow")
    n = 500_000
    features = Features(
        **dict.fromkeys(("sigmas", "orientations", "responses"), np.ones(n, np.float32)),
        **dict.fromkeys(("scales", "octaves"), np.ones(n, np.int32)),
        positions=np.ones((n, 2), np.float32),
        descriptors=np.arange(n, dtype=np.uint32).astype(np.uint8).repeat(128).reshape(n, 128),
    )
    size = sum(array.nbytes for array in features.arrays().values())
    pool, usual = pyarrow.proxy_memory_pool(pyarrow.default_memory_pool()), pyarrow.default_memory_pool()
    sink = open_(output)
    tracemalloc.start()
    pyarrow.set_memory_pool(pool)
    try:
        sink.write("large", features, SHAPE)
        sink.close()
        held = tracemalloc.get_traced_memory()[1] + (pool.max_memory() or 0)
    finally:
        tracemalloc.stop()
        pyarrow.set_memory_pool(usual)
    assert held < (1.5 if output.suffix == ".parquet" else 1) * size  # 0.2 to 1.1 were seen


def test_what_is_committed_is_there_though_the_sink_is_not_closed(output):
    sink = open_(output)
    write(sink, 0, 1, 2)
    sink.commit()
    write(sink, 3)
    copy = output.parent / "copy" / output.name
    (shutil.copytree if output.is_dir() else copy_file)(output, copy)
    assert set(check(copy)) == {name_of(i) for i in range(3)}
    sink.close()
    assert set(check(output)) == {name_of(i) for i in range(4)}


def copy_file(source: Path, target: Path) -> None:
    """Copy a file, with those that SQLite has beside it."""
    target.parent.mkdir()
    for file in source.parent.glob(f"{source.name}*"):
        shutil.copy(file, target.parent)


def test_names_that_are_in_it_may_be_asked_for_by_another_thread(output):
    filled(output, 3)
    sink, found = open_(output), []
    write(sink, 3, 4)
    sink.commit()
    write(sink, 5)
    names = [name_of(i) for i in range(8)] + ["db", "", "x\udcff", "x\0", "x" * 5000]
    thread = threading.Thread(target=lambda: found.extend(name in sink for name in names))
    thread.start()
    write(sink, 20)
    thread.join()
    sink.close()
    assert found == [True] * 6 + [False] * 7


def test_an_image_is_taken_once(output):
    filled(output, 2)
    sink = open_(output)
    write(sink, 2)
    for i in (0, 2):
        with pytest.raises(ValueError, match=f"must be that of an image that .* does not have yet, got '{name_of(i)}'"):
            write(sink, i)
    sink.close()
    assert set(check(output)) == {name_of(i) for i in range(3)}


@pytest.mark.parametrize("name", ["x\udcff.jpg", "x" * 300 + ".jpg", "a\0b.jpg", "0001/keypoints"])
def test_a_name_that_a_format_cannot_hold_is_that_images_failure_only(output, name):
    sink = open_(output)
    write(sink, 0)
    sink.write("0001", features_of("0001"), SHAPE)
    try:
        sink.write(name, features_of(name), SHAPE)
    except ValueError:
        taken = set()
    else:
        taken = {name}
    write(sink, 2)
    sink.close()
    assert set(check(output)) == {name_of(0), "0001", name_of(2)} | taken
    if name == "0001/keypoints" and output.suffix == ".parquet":
        assert taken


def test_a_sink_that_is_closed_says_so(output):
    sink = open_(output)
    sink.close()
    sink.close()
    with pytest.raises(ValueError, match="must be open, but it is closed"):
        write(sink, 0)


def test_what_waits_for_a_commit_is_bounded(output, monkeypatch):
    monkeypatch.setattr("gpusift.sinks.local.MAX_PENDING", 1)
    sink = open_(output)
    write(sink, 0)
    sink._store.abandon()
    sink._lock.release()
    assert set(check(output)) == {name_of(0)}


# Settings, and what is there already.


def test_other_settings_are_refused_with_both_shown(output):
    there = filled(output)
    now = {**SETTINGS, "c_dog": 0.01, "normalization": "l2"}
    with pytest.raises(SettingsDiffer, match=r'normalization was "root", is "l2"; c_dog was null, is 0\.01') as error:
        open_sink(output, now)
    assert error.value.differences == {"normalization": ("root", "l2"), "c_dog": (None, 0.01)}
    assert set(check(output)) == there
    open_sink(output, SETTINGS).close()
    sink = open_sink(output, now, overwrite=True)
    assert name_of(0) not in sink
    assert sink.settings.items() >= now.items()
    sink.close()
    assert not check(output)


def test_settings_are_compared_as_json(output):
    open_sink(output, {**SETTINGS, "size": (1, 2)}).close()
    open_sink(output, {**SETTINGS, "size": [1, 2]}).close()


def test_something_else_is_not_touched_unless_asked(output):
    if output.suffix in (".h5", ".db"):
        output.write_bytes(b"precious")
        theirs = output
    else:
        output.mkdir()
        theirs = output / ("theirs.parquet" if output.suffix else "theirs.npz")
        theirs.write_bytes(b"precious")
    with pytest.raises(FileExistsError, match="must be new, or results of gpusift extract"):
        open_(output)
    assert theirs.read_bytes() == b"precious"
    if theirs == output:
        open_(output, overwrite=True).close()
        assert not check(output)
    else:
        with pytest.raises(FileExistsError, match="must be gpusift's to be overwritten"):
            open_(output, overwrite=True)
        assert theirs.read_bytes() == b"precious"


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_file_in_place_of_a_folder_and_the_other_way_round(output, overwrite):
    if output.suffix in (".h5", ".db"):
        output.mkdir()
    else:
        output.write_bytes(b"precious")
    with pytest.raises(FileExistsError, match="must be new"):
        open_(output, overwrite=overwrite)
    assert output.is_dir() or output.read_bytes() == b"precious"


def test_one_process_writes_at_a_time(output):
    sink = open_(output)
    with pytest.raises(BlockingIOError, match="another one is writing"):
        open_(output)
    write(sink, 0)
    sink.close()
    filled(output.with_name(f"other{output.suffix}"))
    open_(output).close()


def test_output_is_local():
    with pytest.raises(ValueError, match="must be a path on this machine, got 's3://bucket/folder'"):
        open_sink("s3://bucket/folder", {})


# Failures.


def test_failures_are_kept_and_retried_when_asked(output):
    sink = open_(output)
    for i in range(4):
        sink.failures.add(name_of(i), f"file:{i}", f"reason {i}")
    write(sink, 4)
    sink.close()
    sink = open_(output)
    assert [name_of(i) in sink.failures for i in range(5)] == [True] * 4 + [False]
    sink.close()
    sink = open_(output, retry_failed=True)
    assert not any(name_of(i) in sink.failures for i in range(5))
    write(sink, 0, 1)
    sink.failures.add(name_of(2), "file:2", "another reason")
    sink.close()
    assert failures_of(output) == [name_of(2), name_of(3)] or failures_of(output) == [name_of(3), name_of(2)]
    records = {r["name"]: r for file in output.parent.rglob("*failures.jsonl") for r in failures.read(file)}
    assert records[name_of(2)]["reason"] == "another reason"
    assert set(records[name_of(3)]) == {"name", "url", "reason", "time"}
    open_(output, overwrite=True).close()
    assert failures_of(output) == []


# Disks that are full, folders that are read-only.


def fill_until_error(output: Path, limit: int | None) -> tuple[int, str]:
    """Write until there is no room, in a process of its own; return how many images were committed, and the error."""
    code = (
        "import json, resource, sys; from tests.support import sink_writer as w; from gpusift.sinks import open_sink\n"
        "output, limit = sys.argv[1], int(sys.argv[2]); committed = 0; error = None\n"
        "sink = open_sink(output, w.SETTINGS)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (limit or resource.RLIM_INFINITY, resource.RLIM_INFINITY))\n"
        "try:\n"
        "    for i in range(2000):\n"
        "        sink.write(w.name_of(i), w.features_of(w.name_of(i)), w.SHAPE)\n"
        "        if i % 4 == 3:\n"
        "            sink.commit(); committed = i + 1\n"
        "except OSError as e:\n"
        "    error = [e.errno, str(e)]\n"
        "sink.close(); print(json.dumps([committed, error]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(output), str(limit or 0)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    committed, (number, said) = json.loads(done.stdout)
    assert number in (errno.ENOSPC, errno.EFBIG, errno.EIO)
    assert str(output) in said
    return committed, said


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Path]:
    """A file system of one megabyte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("may not mount a small disk here: run as root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("name", OUTPUTS)
def test_a_full_disk(small_disk, tmp_path, name):
    """A clear error, nothing of what was committed lost; with room again, the run goes on."""
    output, ballast = small_disk / name, small_disk / "ballast"
    ballast.write_bytes(bytes(550 << 10))
    committed, said = fill_until_error(output, None)
    assert committed > 4
    assert "what was committed is kept, and the same command resumes from it" in said
    ballast.unlink()
    names = {name_of(i) for i in range(committed)}
    assert set(check(output)) == names
    sink = open_(output)
    assert name_of(committed - 1) in sink
    assert name_of(committed) not in sink
    write(sink, committed, committed + 1)
    sink.close()
    assert set(check(output)) == {name_of(i) for i in range(committed + 2)}


@pytest.mark.parametrize("name", ["features.h5", "database.db", "parts.parquet"])
def test_a_file_that_may_not_grow(quick_path, name):
    committed, _ = fill_until_error(quick_path / name, 300_000)
    assert committed > 4
    assert set(check(quick_path / name)) == {name_of(i) for i in range(committed)}
    sink = open_(quick_path / name)
    write(sink, committed)
    sink.close()
    assert len(check(quick_path / name)) == committed + 1


@pytest.mark.parametrize("name", OUTPUTS)
@pytest.mark.parametrize("there", [False, True])
def test_a_read_only_folder(name, there):
    """Root may write anywhere, so a process that obeys permissions tries it."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "results" / name
        output.parent.mkdir()
        names = filled(output) if there else set()
        for path in (*output.parent.rglob("*"), output.parent, Path(folder)):
            path.chmod(0o555 if path.is_dir() else 0o444)
        report, sent = sink_writer.PROCESSES.Pipe(duplex=False)
        process = sink_writer.start(sink_writer.open_without_rights, str(output), sent)
        process.join()
        for path in (Path(folder), output.parent, *output.parent.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)
        kind, said = report.recv()
        assert (kind, process.exitcode) == ("PermissionError", 0), said
        assert name in said
        assert set(check(output)) == names
        assert output.exists() == there
