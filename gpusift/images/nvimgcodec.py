"""JPEG by NVIDIA's nvImageCodec, on the GPU that computes or on the CPU; `pip install "gpusift[nvimgcodec]"`.

On a GPU, nvJPEG decodes images, which stay in the GPU's memory. On the CPU, nvImageCodec decodes by libjpeg-turbo, as
OpenCV does, to the same pixels. So the same command runs, and is tested, on any machine.

nvJPEG may round differently from libjpeg-turbo, and features depend on the pixels. So a sink's settings name the
library that decoded (`pixels_of`). On a GPU only backends are allowed that decode every file of a batch: neither the
hardware engines, which take a fraction of a batch, nor the CPU backend, which would decode a file without notice.
OpenCV decodes the files that nvImageCodec declines.

On import, the package prints on stderr that its parts for JPEG 2000 and TIFF are missing. They are not needed.
"""

from __future__ import annotations

import importlib.util
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import numpy as np

from gpusift.images.scaling import Decoded, reduced
from gpusift.opencv_package import import_cv2

if TYPE_CHECKING:
    from gpusift.devices import Device
    from gpusift.images.jpeg import PlainJpeg

PACKAGE = "nvidia.nvimgcodec"
VERBOSITY = "PYNVIMGCODEC_VERBOSITY"  # read when the package is imported

# Pixels decoded at once: 3 bytes each, and 12 bytes each for the one image that is being converted to grey.
BATCH_PIXELS = 1 << 27

# A decoder works if it decodes an image of this colour to the right grey value, within a tolerance for nvJPEG's
# rounding, which is not documented.
COLOUR = (40, 120, 200)
TOLERANCE = 8

# The weights of cv2.cvtColor for red, green and blue uint8 values, in units of 2**-15. Half a unit of the result is
# added before the shift.
RGB_TO_GREY_15 = (9798, 19235, 3735)


def require() -> None:
    """Raise unless nvImageCodec is installed.

    Raises
    ------
    ImportError
        It is not installed; the message says how to install it.
    """
    try:
        spec = importlib.util.find_spec(PACKAGE)
    except ModuleNotFoundError:  # of the package around it
        spec = None
    if spec is None:
        raise ImportError(
            "decoder 'nvimgcodec' needs NVIDIA's nvImageCodec, which is not installed: pip install "
            '"gpusift[nvimgcodec]" for CUDA 13 and for the CPU, "gpusift[nvimgcodec-cuda12]" for CUDA 12'
        )


def pixels_of(devices: Sequence[str]) -> str:
    """Name the library by which nvImageCodec decodes on some devices, for the settings of a sink.

    Parameters
    ----------
    devices : sequence of str
        "cpu", "cuda", "cuda:N"; "auto" is a GPU if there is one.

    Returns
    -------
    str
        "nvimgcodec on cpu" or "nvimgcodec on cuda".

    Raises
    ------
    ValueError
        The devices are of both kinds, so that the pixels of an image would depend on the device that took it.
    """
    from gpusift.devices import cuda_info

    auto = "cpu" if "auto" in devices and "error" in cuda_info() else "cuda"
    kinds = {(auto if name == "auto" else name).partition(":")[0] for name in devices}
    if len(kinds) > 1:
        raise ValueError(
            "with decoder 'nvimgcodec' devices must be all GPUs or all 'cpu', whose pixels differ by rounding; got "
            f"{', '.join(devices)}; choose decoder 'opencv' for both at once"
        )
    return f"nvimgcodec on {kinds.pop()}"


class JpegDecoder:
    """Decodes JPEG files to grey images on a device. Calls from several threads run one after the other.

    Parameters
    ----------
    device : Device
        The device whose memory receives the images.
    n_threads : int
        CPU threads, which do a part of the work on a GPU, too.

    Raises
    ------
    ImportError
        nvImageCodec is not installed, or cannot be imported.
    RuntimeError
        nvImageCodec does not decode on the device; the message says what may be missing.
    """

    def __init__(self, device: Device, n_threads: int) -> None:
        require()
        self._codec = _load()
        self._device, self._on_cpu = device, device.cuda_index is None
        kinds = self._codec.BackendKind
        chosen = [kinds.CPU_ONLY] if self._on_cpu else [kinds.GPU_ONLY, kinds.HYBRID_CPU_GPU]
        number = self._codec.NVIMGCODEC_DEVICE_CPU_ONLY if self._on_cpu else device.cuda_index
        self._lock = threading.Lock()
        self._stream: Any = None if self._on_cpu else device.stream()
        try:
            self._decoder = self._codec.Decoder(
                device_id=number, max_num_cpu_threads=n_threads, backends=[self._codec.Backend(kind) for kind in chosen]
            )
            self._check()
        except RuntimeError as error:
            raise RuntimeError(
                f"nvImageCodec {self._codec.__version__} must decode JPEG on {device.name}, but does not ({error}); "
                "on a GPU it needs nvJPEG, and the package must be for a CUDA version that the driver knows: "
                'pip install "gpusift[nvimgcodec]" for CUDA 13, "gpusift[nvimgcodec-cuda12]" for CUDA 12'
            ) from None

    def decode(self, jpegs: Sequence[PlainJpeg], max_size: int | None = None) -> list[Decoded | None]:
        """Decode files.

        Parameters
        ----------
        jpegs : sequence of PlainJpeg
            Of any sizes.
        max_size : int, optional
            As for `gpusift.images.decode`. OpenCV reduces larger images on the host, where they then stay.

        Returns
        -------
        decoded : list of Decoded or None
            In the order of the files: complete uint8 images on the device, grey as `cv2.cvtColor` makes them, with
            their orientation applied. None for a file that nvImageCodec declines.

        Raises
        ------
        MemoryError
            The device's memory does not suffice.
        """
        decoded: list[Decoded | None] = [None] * len(jpegs)
        with self._lock, ExitStack() as stack:
            if not self._on_cpu:
                stack.enter_context(self._device.active())
                stack.enter_context(self._stream)
            for indices in _batches_of_a_kind(jpegs):
                images = self._decode([jpegs[index] for index in indices])
                for index, image in zip(indices, images, strict=True):
                    if image is not None:
                        large = max_size is not None and max(image.shape) > max_size
                        decoded[index] = reduced(self._device.to_host(image) if large else image, max_size, "")
        return decoded

    def _decode(self, jpegs: list[PlainJpeg]) -> list[Any]:
        """Decode files, all grey or all colour, in one call on the current stream, and wait for the call to end."""
        codec, grey = self._codec, jpegs[0].grey
        params = codec.DecodeParams(
            apply_exif_orientation=False, color_spec=codec.ColorSpec.GRAY if grey else codec.ColorSpec.SRGB
        )
        stream = 0 if self._on_cpu else self._stream.ptr
        decoded = self._decoder.decode(
            [codec.CodeStream(jpeg.data) for jpeg in jpegs], params=params, cuda_stream=stream
        )
        images = [self._upright_grey(pixels, jpeg) for pixels, jpeg in zip(decoded, jpegs, strict=True)]
        if not self._on_cpu:
            self._device.synchronize()  # before the colours in `decoded` are freed, and before other streams read
        return images

    def _upright_grey(self, decoded: Any, jpeg: PlainJpeg) -> Any:
        """Return the upright grey image, or None if nothing, or another shape than declared, was decoded."""
        if decoded is None:
            return None
        pixels = np.asarray(decoded.cpu()) if self._on_cpu else self._device.xp.asarray(decoded)
        if pixels.shape != (*jpeg.shape, 1 if jpeg.grey else 3) or pixels.dtype != np.uint8:
            return None
        stored = pixels[..., 0] if jpeg.grey else self._grey(pixels)
        return self._device.xp.array(jpeg.upright(stored), order="C")

    def _grey(self, rgb: Any) -> Any:
        """Convert (M, N, 3) red, green and blue to grey as `cv2.cvtColor` does."""
        if self._on_cpu:
            cv2 = import_cv2()

            return cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
        return grey_of(rgb)

    def _check(self) -> None:
        cv2 = import_cv2()

        from gpusift.images.jpeg import plain_jpeg

        data = cv2.imencode(".jpg", np.full((32, 32, 3), COLOUR, np.uint8))[1].tobytes()
        jpeg = plain_jpeg(data)
        assert jpeg is not None
        (decoded,) = self.decode([jpeg])
        if decoded is None:
            raise RuntimeError("it declines a plain file")
        wanted = cv2.cvtColor(np.full((1, 1, 3), COLOUR, np.uint8), cv2.COLOR_BGR2GRAY).item()
        off = np.abs(self._device.to_host(decoded.image).astype(int) - wanted).max()
        if off > TOLERANCE:
            raise RuntimeError(f"an image of one colour is off by {off} of 255")


def grey_of(rgb: Any) -> Any:
    """Convert colours to grey with exactly the results of `cv2.cvtColor`.

    Parameters
    ----------
    rgb : (M, N, 3) uint8 array
        Red, green and blue, a NumPy or CuPy array.

    Returns
    -------
    (M, N) uint8 array
        An array of the same library.
    """
    total = rgb[..., 0].astype(np.int32)
    total *= RGB_TO_GREY_15[0]
    for channel in (1, 2):
        weighted = rgb[..., channel].astype(np.int32)
        weighted *= RGB_TO_GREY_15[channel]
        total += weighted
    total += 1 << 14
    total >>= 15
    return total.astype(np.uint8)


def _batches_of_a_kind(jpegs: Sequence[PlainJpeg]) -> Iterator[list[int]]:
    """Yield indices of files, all colour or all grey, that are decoded at once; several have BATCH_PIXELS at most."""
    for grey in (False, True):
        batch: list[int] = []
        pixels = 0
        for index, jpeg in enumerate(jpegs):
            if jpeg.grey != grey:
                continue
            size = jpeg.shape[0] * jpeg.shape[1]
            if batch and pixels + size > BATCH_PIXELS:
                yield batch
                batch, pixels = [], 0
            batch.append(index)
            pixels += size
        if batch:
            yield batch


def _load() -> Any:
    """Import the package with its log off, unless the environment sets its level.

    gpusift itself reports which files were declined. The reader would take lines of the log for a decoder's complaint
    about an image.
    """
    asked = VERBOSITY in os.environ
    os.environ.setdefault(VERBOSITY, "0")
    try:
        from nvidia import nvimgcodec
    finally:
        if not asked:
            os.environ.pop(VERBOSITY, None)
    return nvimgcodec
