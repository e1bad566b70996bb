"""The other programs of the peer run: one class each, as in `bench.common.engines`.

bench/README.md lists the engines that have run so far, and those that are written from their documentation.
"""

from __future__ import annotations

import ctypes
import importlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, ClassVar

import numpy as np

from bench.common.engines import Engine, GpusiftCPU, GpusiftCUDA, Image, OpenCV, ScikitImage, UnavailableError

PIXELS_PER_KEYPOINT = 20  # pixels for each keypoint, for programs that need a capacity
LEAST_CAPACITY = 8192


def imported(module: str, package: str) -> Any:
    """Import a module; if that fails, raise `UnavailableError` with the package to install."""
    try:
        return importlib.import_module(module)
    except Exception as error:  # a broken installation may raise anything
        reason = f"{type(error).__name__}: {error}".split("\n")[0]
        raise UnavailableError(f"{module} cannot be imported ({reason}); pip install {package}") from error


def require_driver() -> None:
    """Raise `UnavailableError` without an NVIDIA driver: some programs would end the process."""
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError as error:
        raise UnavailableError(f"there is no NVIDIA driver ({error})") from error


def capacity(shape: tuple[int, int]) -> int:
    """Return a capacity of keypoints that exceeds the number in a photograph."""
    return max(LEAST_CAPACITY, shape[0] * shape[1] // PIXELS_PER_KEYPOINT)


class Colmap:
    """COLMAP's SIFT through pycolmap: VLFeat's on one core of the CPU, with RootSIFT, its default."""

    upsamplings: ClassVar = (1, 2)
    device = "cpu"

    def __init__(self, upsampling: int, shape: tuple[int, int]) -> None:
        pycolmap = imported("pycolmap", "pycolmap")
        if self.device == "cuda" and not pycolmap.has_cuda:
            raise UnavailableError("this pycolmap was built without CUDA; pip install pycolmap-cuda12")
        pycolmap.logging.minloglevel = 1  # omits a line for each extractor
        options = pycolmap.FeatureExtractionOptions()
        options.use_gpu = self.device == "cuda"
        options.sift.first_octave = -1 if upsampling == 2 else 0
        options.sift.max_num_features = capacity(shape)
        self.extractor = pycolmap.FeatureExtractor.create(options, getattr(pycolmap.Device, self.device))
        self.settings = {"upsampling": upsampling, "max_num_features": capacity(shape), "normalization": "L1_ROOT"}

    def __call__(self, image: Image) -> int:
        """Return the number of keypoints of `image`."""
        keypoints, _ = self.extractor.extract_from_uint8_array(image)
        return len(keypoints)


class ColmapCUDA(Colmap):
    """COLMAP's SIFT through pycolmap: SiftGPU on CUDA."""

    device = "cuda"


class KorniaRs:
    """kornia-rs, in Rust: OpenCV's SIFT bit for bit, on the CPU. It takes float32."""

    upsamplings: ClassVar = (1, 2)

    def __init__(self, upsampling: int, shape: tuple[int, int]) -> None:
        imgproc = imported("kornia_rs.imgproc", "kornia-rs")
        arguments = {"upsample": upsampling == 2, "max_keypoints": capacity(shape)}
        self.sift = imgproc.Sift(**arguments)
        self.settings = {**arguments, "contrast_threshold": 0.04, "threads": "default"}

    def __call__(self, image: Image) -> int:
        """Return the number of keypoints of `image`."""
        keypoints, _ = self.sift.detect_and_compute(self._float(image))
        return len(keypoints)

    def _float(self, image: Image) -> np.ndarray:
        return image.astype(np.float32)[..., np.newaxis]


class KorniaRsCUDA(KorniaRs):
    """kornia-rs on CUDA. It copies keypoints to the host as Python objects, also in its device time."""

    def __init__(self, upsampling: int, shape: tuple[int, int]) -> None:
        kornia_rs = imported("kornia_rs", "kornia-rs[cuda]")
        require_driver()
        super().__init__(upsampling, shape)
        self.make = kornia_rs.image.Image.from_numpy
        self.stream = kornia_rs.cuda.Stream.default()

    def __call__(self, image: Image) -> int:
        """Return the number of keypoints of `image`."""
        keypoints, descriptors = self.sift.detect_and_compute(self._on_device(image))
        descriptors.numpy()
        return len(keypoints)

    def on_device(self, images: Sequence[Image]) -> Callable[[], None]:
        """Return a function that computes the features of `images` on the GPU, one after the other."""
        on_device = [self._on_device(image) for image in images]

        def run() -> None:
            for image in on_device:
                self.sift.detect_and_compute(image)

        return run

    def synchronize(self) -> None:
        """Wait for the GPU."""
        self.stream.synchronize()

    def _on_device(self, image: Image) -> Any:
        return self.make(self._float(image)).to_cuda(self.stream)


class Kornia:
    """kornia's ``SIFTFeatureScaleSpace``, in PyTorch: by default the strongest 8,000 without a threshold."""

    upsamplings: ClassVar = (2,)
    device = "cpu"

    def __init__(self, upsampling: int, shape: tuple[int, int]) -> None:
        self.torch = imported("torch", "torch")
        feature = imported("kornia.feature", "kornia")
        if self.device == "cuda" and not self.torch.cuda.is_available():
            raise UnavailableError("this PyTorch finds no GPU: torch.cuda.is_available() is False")
        arguments = {"num_features": 8000, "descriptor_backend": "patch"}
        self.sift = feature.SIFTFeatureScaleSpace(device=self.torch.device(self.device), **arguments)
        threads = {"threads": self.torch.get_num_threads()} if self.device == "cpu" else {}
        self.settings = {**arguments, **threads}

    def __call__(self, image: Image) -> int:
        """Return the number of keypoints of `image`."""
        return self.batch([image])

    def batch(self, images: Sequence[Image]) -> int:
        """Return the number of keypoints of all `images`, computed as one tensor."""
        with self.torch.inference_mode():
            _, responses, _ = (found.cpu() for found in self.sift(self._on_device(images)))
        return int((responses != 0).sum())

    def on_device(self, images: Sequence[Image]) -> Callable[[], None]:
        """Return a function that computes the features of `images` where PyTorch runs."""
        tensors = self._on_device(images)

        def run() -> None:
            with self.torch.inference_mode():
                self.sift(tensors)

        return run

    def _on_device(self, images: Sequence[Image]) -> Any:
        tensor = self.torch.from_numpy(np.stack(images))[:, None].to(self.device)
        return tensor.to(self.torch.float32) / 255


class KorniaCUDA(Kornia):
    """kornia's SIFT on CUDA."""

    device = "cuda"

    def synchronize(self) -> None:
        """Wait for the GPU."""
        self.torch.cuda.synchronize()

    def device_memory(self) -> int:
        """Return the peak of the bytes that PyTorch reserved on the device."""
        return int(self.torch.cuda.max_memory_reserved())


class CvCuda:
    """``cvcuda.sift`` on a batch of images of one shape; CuPy has the arrays on the device."""

    upsamplings: ClassVar = (1, 2)

    def __init__(self, upsampling: int, shape: tuple[int, int]) -> None:
        self.cvcuda = imported("cvcuda", "cvcuda-cu13")
        self.cupy = imported("cupy", "cupy-cuda13x[ctk]")
        require_driver()
        flags = self.cvcuda.SIFT.USE_EXPANDED_INPUT if upsampling == 2 else self.cvcuda.SIFT.USE_ORIGINAL_INPUT
        numbers = {"max_features": capacity(shape), "contrast_threshold": 0.04}
        self.sift = partial(self.cvcuda.sift, flags=flags, **numbers)
        self.settings = {"upsampling": upsampling, **numbers}

    def __call__(self, image: Image) -> int:
        """Return the number of keypoints of `image`."""
        return self.batch([image])

    def batch(self, images: Sequence[Image]) -> int:
        """Return the number of keypoints of all `images`; the features of each are copied to the host."""
        *found, numbers = (self.cupy.asarray(tensor.cuda()) for tensor in self.sift(self._on_device(images)))
        self.synchronize()
        counts = np.minimum(self.cupy.asnumpy(numbers).ravel(), found[0].shape[1])
        for image, count in enumerate(counts.tolist()):
            for array in found:
                self.cupy.asnumpy(array[image, :count])
        return int(counts.sum())

    def on_device(self, images: Sequence[Image]) -> Callable[[], None]:
        """Return a function that computes the features of `images`, both on the GPU."""
        tensors = self._on_device(images)

        def run() -> None:
            self.sift(tensors)

        return run

    def synchronize(self) -> None:
        """Wait for the GPU."""
        self.cupy.cuda.Device().synchronize()

    def _on_device(self, images: Sequence[Image]) -> Any:
        array = self.cupy.asarray(np.stack(images)[..., np.newaxis])
        self.synchronize()  # CV-CUDA has its own stream
        return self.cvcuda.as_tensor(array, "NHWC")


class PySift:
    """PySIFT (``staysift``): at most 8,000 keypoints. It does not enlarge images above a size that it defines."""

    upsamplings: ClassVar = (1, 2)

    def __init__(self, upsampling: int, shape: tuple[int, int]) -> None:
        require_driver()
        self.cupy = imported("cupy", "cupy-cuda12x")
        pysift = imported("pysift", "staysift")
        arguments = {"double_image": upsampling == 2}
        self.sift = pysift.PySIFT(**arguments)
        self.settings = {**arguments, "contrast_thresh": 0.04, "rootsift": True, "n_octaves": self.sift.n_octaves}

    def __call__(self, image: Image) -> int:
        """Return the number of keypoints of `image`."""
        keypoints, _ = self.sift.detectAndCompute(image)
        return len(keypoints)

    def on_device(self, images: Sequence[Image]) -> Callable[[], None]:
        """Return a function that computes the features of `images`, both on the GPU, one after the other."""
        on_device = [self.cupy.asarray(image) for image in images]

        def run() -> None:
            for image in on_device:
                self.sift.detectAndCompute(image, gpu_output=True)

        return run

    def synchronize(self) -> None:
        """Wait for the GPU."""
        self.cupy.cuda.Device().synchronize()

    def device_memory(self) -> int:
        """Return the bytes that CuPy's pool has allocated on the device."""
        return int(self.cupy.get_default_memory_pool().total_bytes())


class Silx:
    """silx's ``SiftPlan`` in OpenCL, on a GPU if OpenCL finds one, else on the CPU; it never enlarges."""

    upsamplings: ClassVar = (1,)

    def __init__(self, upsampling: int, shape: tuple[int, int]) -> None:
        pyopencl = imported("pyopencl", "pyopencl")
        sift = imported("silx.opencl.sift", "silx")
        try:
            platforms = pyopencl.get_platforms()
        except pyopencl.LogicError as error:
            raise UnavailableError(f"OpenCL finds no platform ({error})") from error
        kinds = {device.type for platform in platforms for device in platform.get_devices()}
        kind = "GPU" if any(found & pyopencl.device_type.GPU for found in kinds) else "CPU"
        self.plan = sift.SiftPlan(shape=shape, dtype=np.uint8, devicetype=kind)
        self.settings = {"devicetype": kind, "device": self.plan.device.name.strip()}

    def __call__(self, image: Image) -> int:
        """Return the number of keypoints of `image`."""
        return len(self.plan.keypoints(image))


PEERS: dict[str, type[Engine]] = {
    "gpusift-cuda": GpusiftCUDA,
    "gpusift-cpu": GpusiftCPU,
    "opencv": OpenCV,
    "scikit-image": ScikitImage,
    "cvcuda": CvCuda,
    "kornia-rs-cuda": KorniaRsCUDA,
    "kornia-rs-cpu": KorniaRs,
    "kornia-cuda": KorniaCUDA,
    "kornia-cpu": Kornia,
    "pysift": PySift,
    "pycolmap-cuda": ColmapCUDA,
    "pycolmap-cpu": Colmap,
    "silx": Silx,
}
