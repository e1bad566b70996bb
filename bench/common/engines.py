"""The engines that are compared: one class each, made in a process of its own.

An engine's constructor imports its library and raises `UnavailableError` if it cannot run here. It takes the upsampling
and the images' shape, which only some engines need. ``engine(image)`` takes a grey uint8 image in host memory, computes
positions and descriptors in host memory, and returns the number of keypoints.

These are the engines of the standard run. `bench.peers.engines` adds those of the peer run, which also has batches.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from bench.common import gpus

Image = NDArray[np.uint8]


class UnavailableError(Exception):
    """The engine cannot run on this machine; the message says why."""


class Engine(Protocol):
    """What the worker needs of an engine.

    An engine may also have `stages`, `device_timer` and `device_memory`, which the worker uses if they exist; and for
    the peer run `batch(images)`, host to host; `on_device(images)`, which returns a function that computes the features
    of images on the device and leaves them there; `synchronize()`, which waits for the device.
    """

    settings: dict[str, Any]
    upsamplings: ClassVar[tuple[int, ...]]  # supported ones

    def __call__(self, image: Image) -> int:
        """Return the number of keypoints of `image`."""


class OpenCV:
    """``cv2.SIFT`` with its defaults, which are Lowe's; it always enlarges twice."""

    upsamplings: ClassVar = (2,)

    def __init__(self, upsampling: int = 2, shape: tuple[int, int] | None = None) -> None:
        try:
            import cv2
        except ImportError as error:
            raise UnavailableError(f"OpenCV cannot be imported: {error}") from error
        arguments = {"nfeatures": 0, "contrastThreshold": 0.04, "edgeThreshold": 10, "sigma": 1.6}
        self.sift = cv2.SIFT.create(**arguments)
        self.settings = {**arguments, "threads": "all"}

    def __call__(self, image: Image) -> int:
        """Return the number of keypoints of `image`."""
        keypoints, _ = self.sift.detectAndCompute(image, None)
        return len(keypoints)


class ScikitImage:
    """``skimage.feature.SIFT`` with its defaults; it runs on one core."""

    upsamplings: ClassVar = (1, 2)

    def __init__(self, upsampling: int = 2, shape: tuple[int, int] | None = None) -> None:
        try:
            from skimage.feature import SIFT
        except ImportError as error:
            raise UnavailableError(f"scikit-image cannot be imported: {error}") from error
        self.make: Any = SIFT
        self.settings = {"upsampling": upsampling, "threads": 1}

    def __call__(self, image: Image) -> int:
        """Return the number of keypoints of `image`."""
        sift: Any = self.make(upsampling=self.settings["upsampling"])
        try:
            sift.detect_and_extract(image)
        except RuntimeError:  # it raises this for an image without features
            return 0
        return len(sift.keypoints)


class GpusiftCPU:
    """``gpusift.SIFT`` on the CPU, all cores, float32."""

    upsamplings: ClassVar = (1, 2)
    device = "cpu"
    processors: ClassVar[dict[str, Any]] = {"threads": "all"}

    def __init__(self, upsampling: int = 2, shape: tuple[int, int] | None = None) -> None:
        try:
            from gpusift import SIFT
        except ImportError as error:
            raise UnavailableError(f"gpusift cannot be imported: {error}") from error
        arguments = {"upsampling": upsampling, "dtype": "float32"}
        try:
            self.sift = SIFT(device=self.device, **arguments)
        except RuntimeError as error:
            raise UnavailableError(str(error)) from error
        self.settings = {**arguments, **self.processors}

    def __call__(self, image: Image) -> int:
        """Return the number of keypoints of `image`."""
        return len(self.sift.compute(image).to_host())

    def batch(self, images: Sequence[Any]) -> int:
        """Return the number of keypoints of all `images`, computed as one batch where gpusift can."""
        return sum(map(len, self.sift.compute_batch(images, len(images), on_host=True)))

    def stages(self, image: Image) -> dict[str, float]:
        """Return the seconds of each stage of one call, in order.

        The device is synchronized after each stage, so their sum is larger than the time of a call.
        """
        from gpusift import pipeline
        from gpusift.pipeline import inputs
        from gpusift.pipeline.outcomes import require

        seconds: dict[str, float] = {}
        last = time.perf_counter()

        def ended(stage: str) -> None:
            nonlocal last
            now = time.perf_counter()
            seconds[stage] = now - last
            last = now

        opened = inputs.open_image(self.sift.plans, image)
        (outcome,) = pipeline.compute(self.sift.plans, [opened], on_stage=ended)
        require(outcome).to_host()
        ended("download")
        return seconds


class GpusiftCUDA(GpusiftCPU):
    """``gpusift.SIFT`` on the first CUDA device, float32; images come from host memory."""

    device = "cuda"
    processors: ClassVar[dict[str, Any]] = {}

    def on_device(self, images: Sequence[Image]) -> Callable[[], None]:
        """Return a function that computes the features of `images`, both on the GPU."""
        import cupy

        on_device = [cupy.asarray(image) for image in images]

        def run() -> None:
            self.sift.compute_batch(on_device, len(on_device))

        return run

    def synchronize(self) -> None:
        """Wait for the GPU."""
        import cupy

        cupy.cuda.Device().synchronize()

    def device_timer(self, image: Image) -> Callable[[], float]:
        """Return a function that times one call by CUDA events, image and features on the GPU."""
        import cupy

        on_device = cupy.asarray(image)
        start, end = cupy.cuda.Event(), cupy.cuda.Event()

        def seconds() -> float:
            start.record()
            self.sift.compute(on_device)
            end.record()
            end.synchronize()
            return float(cupy.cuda.get_elapsed_time(start, end)) / 1e3

        return seconds

    def device_memory(self) -> int:
        """Return the bytes that CuPy's pool has allocated on the device: its peak."""
        import cupy

        return int(cupy.get_default_memory_pool().total_bytes())

    def copy_bandwidth(self) -> float:
        """Return the bytes read and written per second by a device-to-device copy of 1 GiB."""
        return gpus.copy_bandwidth()


ENGINES: dict[str, type[Engine]] = {
    "gpusift-cuda": GpusiftCUDA,
    "gpusift-cpu": GpusiftCPU,
    "opencv": OpenCV,
    "scikit-image": ScikitImage,
}
