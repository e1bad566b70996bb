#!/usr/bin/env python
"""Show when a device copies and computes while `gpusift extract` runs, for images of one shape and of several.

    python -m bench.jobs.timeline [--device cpu|cuda] [--images 24] [--batch 4] [--out DIR]

On a GPU, CUDA events are the log. The CPU has no streams; here it is given some: what is launched runs later, in a
thread for each stream, and only one upload, one computation and one download at a time. A line of the picture is one
of these three, and a digit is the batch that it works on. `busy` is the fraction of the time, from the first upload to
the last download, in which something is computed.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from queue import SimpleQueue
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from bench.common import machine, photographs, rows
from gpusift import SIFT
from gpusift.devices import Copy, CpuDevice, CudaDevice
from gpusift.stream import extract

ENGINES = ("upload", "compute", "download")
WIDTH = 100  # characters of the picture
SIDE = 400, 520  # rows and columns of the images


class Piece(NamedTuple):
    """What an engine did for a batch, with its start and end in seconds."""

    engine: str
    batch: int
    start: float
    end: float


class LateStream:
    """A queue of work, which a thread of its own does, as a context in which the queue is the current one."""

    def __init__(self, device: LateCpu) -> None:
        self._device, self.work, self.n_batches = device, SimpleQueue[Callable[[], None]](), 0
        threading.Thread(target=self._run, daemon=True).start()

    def __enter__(self) -> LateStream:
        self._before, self._device.current = self._device.current, self
        return self

    def __exit__(self, *_: object) -> None:
        self._device.current = self._before

    def _run(self) -> None:
        with self._device.active():
            while True:
                self.work.get()()


class LateCpu(CpuDevice):
    """The CPU with streams and three engines; it logs what these do."""

    n_streams = 3

    def __init__(self) -> None:
        super().__init__()
        self.log: list[Piece] = []
        self.n_batches = 0
        self.current: LateStream | None = None  # one thread launches
        self._engines = {engine: threading.Lock() for engine in ENGINES}

    def batch_size(self, bytes_of_image: int) -> int:
        """As many as a GPU takes."""
        return 64

    def stream(self) -> AbstractContextManager[Any]:
        """A new stream."""
        return LateStream(self)

    def mark(self) -> Any:
        """An event behind the work of the current stream."""
        event = threading.Event()
        self._enqueue(event.set)
        return event

    def wait_for(self, mark: Any) -> None:
        """The current stream waits for an event."""
        self._enqueue(mark.wait)

    def synchronize(self) -> None:
        """Waits for the current stream."""
        self.mark().wait()

    def upload(self, parts: Sequence[tuple[int, np.ndarray]], memory: Any, staging: Any) -> None:
        """Copies arrays later."""
        self.n_batches += 1
        self._logged("upload", lambda: super(LateCpu, self).upload(parts, memory, staging))

    def program(self, steps: Sequence[Callable[[], None]]) -> Callable[[], None]:
        """Launches that run later."""
        run = super().program(steps)
        return lambda: self._logged("compute", run)

    def download(self, array: np.ndarray, staging: Any) -> Copy:
        """An array that is copied later."""
        copied: list[np.ndarray] = []
        self._logged("download", lambda: copied.append(array.copy()))
        event = self.mark()

        def wait() -> np.ndarray:
            event.wait()
            return copied[0]

        return Copy(event.is_set, wait)

    def _logged(self, engine: str, run: Callable[[], None]) -> None:
        batch = self.n_batches

        def work() -> None:
            with self._engines[engine]:
                start = time.perf_counter()
                run()
                self.log.append(Piece(engine, batch, start, time.perf_counter()))

        self._enqueue(work)

    def _enqueue(self, work: Callable[[], Any]) -> None:
        if self.current is None:
            work()
        else:
            self.current.work.put(work)

    def pieces(self) -> list[Piece]:
        """The log."""
        return list(self.log)


class LoggedCuda(CudaDevice):
    """A GPU that logs its copies and computations by events."""

    def __init__(self) -> None:
        super().__init__()
        self._events: list[tuple[str, int, Any, Any]] = []
        self.n_batches = 0
        with self.active():
            self._begun = self.mark()
            self.wait_until(self._begun)

    def upload(self, *given: Any) -> None:
        """Copies arrays."""
        self.n_batches += 1
        self._logged("upload", lambda: super(LoggedCuda, self).upload(*given))

    def program(self, steps: Sequence[Callable[[], None]]) -> Callable[[], None]:
        """Launches as one function."""
        run = super().program(steps)
        return lambda: self._logged("compute", run)

    def download(self, array: Any, staging: Any) -> Copy:
        """Starts the copy of an array."""
        return self._logged("download", lambda: super(LoggedCuda, self).download(array, staging))

    def _logged(self, engine: str, run: Callable[[], Any]) -> Any:
        start = self.mark()
        made = run()
        self._events.append((engine, self.n_batches, start, self.mark()))
        return made

    def pieces(self) -> list[Piece]:
        """The log; waits for all of it."""
        between = self.xp.cuda.get_elapsed_time
        for *_, end in self._events:
            self.wait_until(end)
        return [
            Piece(engine, batch, between(self._begun, start) / 1e3, between(self._begun, end) / 1e3)
            for engine, batch, start, end in self._events
        ]


def logged(device: LateCpu | LoggedCuda, shapes: Sequence[tuple[int, int]], batch_size: int | None) -> list[Piece]:
    """Return what the device did while `gpusift.stream.extract` computed images of these shapes, in turn."""
    sift = SIFT(device="cpu" if isinstance(device, LateCpu) else "cuda")
    sift._device = sift.plans.device = device
    with tempfile.TemporaryDirectory() as folder:
        photos = Path(folder) / "photos"
        photos.mkdir()
        for number, shape in enumerate(shapes):
            Image.fromarray(photographs.mosaic(*shape)).save(photos / f"{number:04}.png")
        extract(photos, f"npz:{folder}/features", sift, batch_size=batch_size)
    return device.pieces()


def busy(pieces: Sequence[Piece]) -> float:
    """Return the fraction of the time in which something is computed; computations of two batches may overlap."""
    covered, reached = 0.0, -np.inf
    for piece in sorted((piece for piece in pieces if piece.engine == "compute"), key=lambda piece: piece.start):
        covered += max(0.0, piece.end - max(piece.start, reached))
        reached = max(reached, piece.end)
    return covered / _span(pieces)[1]


def overlapping(pieces: Sequence[Piece]) -> int:
    """Return how many batches are uploaded or downloaded while another one is computed."""
    computed = [piece for piece in pieces if piece.engine == "compute"]

    def is_beside_another(copy: Piece) -> bool:
        return any(of.batch != copy.batch and of.start < copy.end and copy.start < of.end for of in computed)

    return len({piece.batch for piece in pieces if piece.engine != "compute" and is_beside_another(piece)})


def picture(pieces: Sequence[Piece]) -> list[str]:
    """Return the timeline, a line for each engine; the last digit of a batch's number stands where it is worked on."""
    start, seconds = _span(pieces)
    lines = []
    for engine in ENGINES:
        cells = [" "] * WIDTH
        for piece in (piece for piece in pieces if piece.engine == engine):
            first, last = (int((at - start) / seconds * (WIDTH - 1)) for at in (piece.start, piece.end))
            cells[first : last + 1] = str(piece.batch % 10) * (last + 1 - first)
        lines.append(f"{engine:8} |{''.join(cells)}|")
    return lines


def _span(pieces: Sequence[Piece]) -> tuple[float, float]:
    """Return the start of the first piece, and the seconds to the end of the last one."""
    start = min(piece.start for piece in pieces)
    return start, max(piece.end for piece in pieces) - start


def shapes_of(kind: str, n: int, side: tuple[int, int]) -> list[tuple[int, int]]:
    """Return the shapes of `n` images: of one shape, or of three that alternate."""
    rows_, cols = side
    several = [side, (cols, rows_), (rows_, rows_)]
    return [several[number % 3] if kind == "mixed" else side for number in range(n)]


def main() -> None:
    """Draw a timeline for one shape and for several, and append their rows to `timeline.jsonl`."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--images", type=int, default=24)
    parser.add_argument("--batch", type=int, default=4, help="images of a batch, at most")
    parser.add_argument("--side", type=int, nargs=2, default=SIDE, metavar=("ROWS", "COLS"))
    parser.add_argument("--out", type=Path, default=machine.RESULTS, help="folder of the rows")
    options = parser.parse_args()
    common = rows.provenance(device=options.device, side=list(options.side), images=options.images)
    for kind in ("one shape", "mixed"):
        device = LateCpu() if options.device == "cpu" else LoggedCuda()
        pieces = logged(device, shapes_of(kind, options.images, tuple(options.side)), options.batch)
        row = {
            "shapes": kind,
            "batch_size": options.batch,
            "batches": len({piece.batch for piece in pieces}),
            "overlapping": overlapping(pieces),
            "busy": round(busy(pieces), 3),
            "pieces": [list(piece) for piece in pieces],
        }
        rows.append(options.out / "timeline.jsonl", {**common, **row})
        rows.say(f"{kind}: {row['batches']} batches, {row['overlapping']} of them copied while another is computed, ")
        rows.say(f"computing {row['busy']:.0%} of {_span(pieces)[1]:.2f} s")
        rows.say("\n".join(picture(pieces)))


if __name__ == "__main__":
    main()
