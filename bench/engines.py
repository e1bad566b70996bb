"""The engines that are compared: one class each, made in a process of its own.

Making an engine imports what it needs and raises `UnavailableError` if it cannot run here. Then
``engine(image)`` takes a grey uint8 image in host memory and returns the number of keypoints,
with positions and descriptors computed and in host memory.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]

COPY_BYTES = 2**30  # of the device-to-device copy that gives the bandwidth


class UnavailableError(Exception):
    """The engine cannot run on this machine; the message says why."""


class Engine(Protocol):
    """What the worker asks of an engine."""

    settings: ClassVar[dict[str, Any]]

    def __call__(self, image: Image) -> int:
        """Return the number of keypoints of `image`."""


class OpenCV:
    """``cv2.SIFT`` with its defaults, which are Lowe's; it always enlarges twice."""

    settings: ClassVar[dict[str, Any]] = {
        "nfeatures": 0,
        "contrastThreshold": 0.04,
        "edgeThreshold": 10,
        "sigma": 1.6,
        "threads": "all",
    }

    def __init__(self) -> None:
        try:
            import cv2
        except ImportError as error:
            raise UnavailableError(f"OpenCV cannot be imported: {error}") from error
        arguments = {name: value for name, value in self.settings.items() if name != "threads"}
        self.sift = cv2.SIFT.create(**arguments)

    def __call__(self, image: Image) -> int:
        """Return the number of keypoints of `image`."""
        keypoints, _ = self.sift.detectAndCompute(image, None)
        return len(keypoints)


class ScikitImage:
    """``skimage.feature.SIFT`` with its defaults; it runs on one core."""

    settings: ClassVar[dict[str, Any]] = {"upsampling": 2, "threads": 1}

    def __init__(self) -> None:
        try:
            from skimage.feature import SIFT
        except ImportError as error:
            raise UnavailableError(f"scikit-image cannot be imported: {error}") from error
        self.make: Any = SIFT

    def __call__(self, image: Image) -> int:
        """Return the number of keypoints of `image`."""
        sift: Any = self.make(upsampling=self.settings["upsampling"])
        try:
            sift.detect_and_extract(image)
        except RuntimeError:  # its way to say that there are no features
            return 0
        return len(sift.keypoints)


class GpusiftCPU:
    """``gpusift.SIFT`` on the CPU, all cores, float32."""

    settings: ClassVar[dict[str, Any]] = {"upsampling": 2, "dtype": "float32", "threads": "all"}
    device = "cpu"

    def __init__(self) -> None:
        try:
            from gpusift import SIFT
        except ImportError as error:
            raise UnavailableError(f"gpusift cannot be imported: {error}") from error
        arguments = {name: value for name, value in self.settings.items() if name != "threads"}
        try:
            self.sift = SIFT(device=self.device, **arguments)
        except RuntimeError as error:
            raise UnavailableError(str(error)) from error

    def __call__(self, image: Image) -> int:
        """Return the number of keypoints of `image`."""
        return len(self.sift.compute(image).to_host())

    def stages(self, image: Image) -> dict[str, float]:
        """Return the seconds of each stage of one call, in order.

        The device is waited for after each stage, so their sum is more than the time of a call.
        """
        from gpusift import pipeline

        seconds: dict[str, float] = {}
        last = time.perf_counter()

        def ended(stage: str) -> None:
            nonlocal last
            now = time.perf_counter()
            seconds[stage] = now - last
            last = now

        features = pipeline.run(self.sift.device, image, self.sift.parameters, on_stage=ended)
        features.to_host()
        ended("download")
        return seconds


class GpusiftCUDA(GpusiftCPU):
    """``gpusift.SIFT`` on the first CUDA device, float32; images come from host memory."""

    settings: ClassVar[dict[str, Any]] = {"upsampling": 2, "dtype": "float32"}
    device = "cuda"

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
        """Return the bytes that CuPy's pool has taken from the device: its largest demand."""
        import cupy

        return int(cupy.get_default_memory_pool().total_bytes())

    def copy_bandwidth(self) -> float:
        """Return the bytes read and written per second by a device-to-device copy of 1 GiB."""
        import cupy

        source = cupy.zeros(COPY_BYTES, cupy.uint8)
        target = cupy.empty_like(source)
        start, end = cupy.cuda.Event(), cupy.cuda.Event()
        seconds = []
        for _ in range(10):
            start.record()
            cupy.copyto(target, source)
            end.record()
            end.synchronize()
            seconds.append(cupy.cuda.get_elapsed_time(start, end) / 1e3)
        del source, target
        cupy.get_default_memory_pool().free_all_blocks()
        return 2 * COPY_BYTES / float(np.median(seconds[2:]))


ENGINES: dict[str, Callable[[], Engine]] = {
    "gpusift-cuda": GpusiftCUDA,
    "gpusift-cpu": GpusiftCPU,
    "opencv": OpenCV,
    "scikit-image": ScikitImage,
}
