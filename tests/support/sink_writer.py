"""A process that fills a sink, to be killed, and what must be in the sink then; used by the tests of sinks."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Container, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import cv2  # noqa: F401 - before pycolmap, see gpusift.sinks.colmap.cameras
import h5py
import numpy as np

import gpusift
from gpusift import Features, colmap, hdf5, npz, parquet
from gpusift.sinks import open_sink
from gpusift.storage import transaction
from tests.support.rights import obey_permissions

SHAPE = (96, 80)
SETTINGS = {"normalization": "root", "descriptor_layout": "ubc", "dtype": "float32", "exif_orientation": False}
OUTPUTS = ["features.h5", "database.db", "parts.parquet", "folder"]

# A process is killed at lines of the modules that write. Reading, and pages in memory, are left to kills by the clock;
# so is the HDF5 sink, whose writes go through a transaction.
PACKAGE = Path(gpusift.__file__).parent
WRITING = {*(PACKAGE / "sinks").rglob("*.py"), *(PACKAGE / "storage").glob("*.py"), PACKAGE / "npz.py"}
CRITICAL = set(map(str, WRITING - {PACKAGE / "sinks" / "hdf5.py", PACKAGE / "storage" / "name_set.py"}))
CALM = {"read", "readinto", "read_at", "_pages", "seek", "tell", "_lengthen", "_change", "check", "<genexpr>"}

PLACES = (10, 2 * transaction.PAGE, 5 * transaction.PAGE - 3)  # that `change` changes

# Of functions in this module: importing that of a test takes long.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload([__name__, "pytest"])  # so that a process is there at once


def name_of(i: int) -> str:
    return f"db/{i % 3}/{i:04d}.jpg" if i % 2 else f"{i:04d}.png"


def features_of(name: str) -> Features:
    """Features that follow from the name; some images have none."""
    rng = np.random.default_rng(list(os.fsencode(name)))
    n = int(rng.integers(0, 60))
    return Features(
        positions=(rng.random((n, 2)) * SHAPE).astype(np.float32),
        sigmas=(rng.random(n) + 1).astype(np.float32),
        scales=rng.integers(1, 4, n).astype(np.int32),
        octaves=rng.integers(0, 4, n).astype(np.int32),
        orientations=rng.uniform(-3, 3, n).astype(np.float32),
        responses=rng.normal(size=n).astype(np.float32),
        descriptors=rng.integers(0, 256, (n, 128), dtype=np.uint8),
    )


def fill(output: str, n: int, at_line: int | None = None, log: str | None = None) -> None:
    """Write the images that are not in a sink yet, committing now and then; log what is committed."""
    hdf5.CHUNK = 16  # descriptors of some images are written in pieces
    if at_line is not None:
        kill_at_line(at_line)
    sink = open_sink(output, SETTINGS)
    pending: list[str] = []
    for i in range(n):
        name = name_of(i)
        if name in sink:
            continue
        if i % 7 == 6:
            if name not in sink.failures:
                sink.failures.add(name, f"file:{name}", "is bad")
            continue
        sink.write(name, features_of(name), SHAPE)
        pending.append(name)
        if i % 4 == 3:
            sink.commit()
            _note(log, pending)
            pending = []
    sink.close()
    _note(log, pending)
    sys.settrace(None)


def change(path: str, at_line: int) -> None:
    """Change and lengthen a file in one transaction, to be killed at a line."""
    kill_at_line(at_line)
    file = transaction.TransactionalFile(Path(path))
    for place in PLACES:
        file.seek(place)
        file.write(b"new" * 5)
    file.commit()
    sys.settrace(None)


def write_one(output: str, name: str, at_write: int) -> None:
    """Write an image in many pieces, to be killed instead of a write to the disk, that of this number."""
    hdf5.CHUNK = 16
    real, left = os.pwrite, at_write

    def pwrite(*arguments: Any) -> int:
        nonlocal left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*arguments)

    with mock.patch.object(os, "pwrite", pwrite):
        sink = open_sink(output, SETTINGS)
        sink.write(name, features_of(name), SHAPE)
        sink.close()


def start(function: Any, *arguments: Any) -> Any:
    """Call a function in another process, which has imported this module already."""
    process = PROCESSES.Process(target=function, args=arguments)
    process.start()
    return process


def open_without_rights(output: str, report: Any) -> None:
    """Try to open a sink as a user whom permissions bind, and report the error."""
    obey_permissions()
    try:
        open_sink(output, SETTINGS).close()
    except Exception as error:
        report.send((type(error).__name__, str(error)))
    else:
        report.send(("", "it was opened"))


def run(
    output: Path, n: int, *, after: float | None = None, at_line: int | None = None, log: Path | None = None
) -> int:
    """Fill a sink in another process, to be killed after so many seconds, or at a line; return the exit code."""
    process = start(fill, str(output), n, at_line, None if log is None else str(log))
    if after is not None:
        time.sleep(after)
        process.kill()
    process.join()
    return process.exitcode


def wanted(n: int) -> set[str]:
    return {name_of(i) for i in range(n) if i % 7 != 6}


def failed(n: int) -> set[str]:
    return {name_of(i) for i in range(n) if i % 7 == 6}


def add_image(output: Path, name: str = "a") -> None:
    """Make or resume an output, and write one image."""
    sink = open_sink(output, SETTINGS)
    sink.write(name, features_of(name), SHAPE)
    sink.close()


def check(output: Path, log: Path | None = None) -> Counter[str]:
    """Return what names a sink has, after seeing that all is right in each, and that what was committed is there."""
    found: Counter[str] = Counter()
    reader: Any = {".h5": read_hdf5, ".db": read_colmap, ".parquet": parquet.read}.get(output.suffix, read_npz)
    for name, shape, got in reader(output) if output.exists() else ():
        found[name] += 1
        assert tuple(shape) == SHAPE
        if output.suffix in (".h5", ".db"):
            assert got(features_of(name)), name
            continue
        for field in Features.__dataclass_fields__.keys() - {"provenance"}:  # which not all formats have
            np.testing.assert_array_equal(getattr(got, field), getattr(features_of(name), field))
    assert set(found.values()) <= {1}
    if log is not None and log.exists():
        noted = log.read_text().split("\n")[:-1]
        assert set(noted) <= set(found), "lost"
    return found


def is_size(name: str, item: Any) -> bool:
    return isinstance(item, h5py.Dataset) and name.endswith("image_size")


def read_hdf5(path: Path) -> Iterator[tuple]:
    """Read by plain h5py; only from the middle of a transaction does it take `recover`."""
    if transaction.has_journal(path):
        hdf5.recover(path)
    with h5py.File(path) as file:
        groups: list[str] = []
        file.visititems(lambda name, item: groups.append(item.parent.name[1:]) if is_size(name, item) else None)
        for name in groups:
            group = file[name]
            arrays = {key: data[()] for key, data in group.items() if isinstance(data, h5py.Dataset)}
            assert len(arrays) == 6

            def same(features: Features, arrays: dict = arrays) -> bool:
                expected = hdf5.hloc_arrays(features, SHAPE, "root")
                return all(np.array_equal(arrays[key], expected[key]) for key in expected)

            yield name, arrays["image_size"][::-1], same


def read_colmap(path: Path) -> Iterator[tuple]:
    """Read by pycolmap."""
    pycolmap = colmap.import_pycolmap()
    with pycolmap.Database.open(path) as database:
        cameras = {camera.camera_id: camera for camera in database.read_all_cameras()}
        frames = {frame.frame_id: frame for frame in database.read_all_frames()}
        for image in database.read_all_images():
            camera = cameras[image.camera_id]
            assert [data.id for data in frames[image.frame_id].data_ids] == [image.image_id]
            keypoints = database.read_keypoints(image.image_id)
            descriptors = database.read_descriptors(image.image_id).data

            def same(features: Features, keypoints: Any = keypoints, descriptors: Any = descriptors) -> bool:
                rows = colmap.keypoint_rows(features)
                return np.array_equal(keypoints, rows) and np.array_equal(descriptors, features.descriptors)

            yield image.name, (camera.height, camera.width), same


def read_npz(folder: Path) -> Iterator[tuple]:
    """Read by NumPy; what is hidden is not complete."""
    for path in folder.rglob("*.npz"):
        name = str(path.relative_to(folder)).removesuffix(".npz")
        if not name.startswith(".") and path.is_file():
            with np.load(path, allow_pickle=False) as data:
                yield name, data["image_shape"], npz.load(path)


def _note(log: str | None, names: list[str]) -> None:
    if log is not None:
        with open(log, "a") as file:
            file.write("".join(f"{name}\n" for name in names))


def kill_at_line(number: int) -> None:
    """Have this process killed before the line of that number, of those that are critical, counted as they are run."""
    at_line(number, lambda: os.kill(os.getpid(), signal.SIGKILL))


def at_line(number: int, act: Callable[[], None], paths: Container[str] = CRITICAL, calm: Container[str] = ()) -> None:
    """Act once, before the line of that number in these files but for calm functions; `sys.settrace(None)` ends it."""
    left = number

    def line(frame: Any, event: str, argument: Any) -> Any:
        nonlocal left
        if event == "line":
            left -= 1
            if left < 0:
                sys.settrace(None)
                act()
        return line

    def call(frame: Any, event: str, argument: Any) -> Any:
        code = frame.f_code
        return line if code.co_filename in paths and code.co_name not in CALM and code.co_name not in calm else None

    sys.settrace(call)
