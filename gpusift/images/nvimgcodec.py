"""JPEG by NVIDIA's nvImageCodec: on the GPU that computes, or on the CPU; `pip install "gpusift[nvimgcodec]"`.

On a GPU (nvJPEG) pictures are decoded and stay in its memory. On the CPU the package decodes by libjpeg-turbo, as
OpenCV does, with the same pixels: it is there so that one command runs, and is tested, everywhere.

nvJPEG may round otherwise than libjpeg-turbo, and features follow the pixels. So which of them decoded is part of a
sink's settings (`pixels_of`), and on a GPU only backends are allowed that take every file of a batch: not the hardware
engines, which take a share of it, and not the CPU's, to which a file would go unnoticed. What is declined is given
back, for OpenCV.

When it is imported, the package prints on stderr that its parts for JPEG 2000 and TIFF are missing. They are not
needed.
"""

from __future__ import annotations

import importlib.util
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import numpy as np

from gpusift.images import RGB_TO_GREY_15, Decoded, smaller

if TYPE_CHECKING:
    from gpusift.devices import Device
    from gpusift.images.jpeg import PlainJpeg

PACKAGE = "nvidia.nvimgcodec"
VERBOSITY = "PYNVIMGCODEC_VERBOSITY"  # read when the package is imported

# Pixels decoded at once: 3 bytes each, and 12 for one picture at a time while it becomes grey.
BATCH_PIXELS = 1 << 27

# A picture of one colour, off by so much at most, tells a decoder that works; nvJPEG's rounding is not known better.
COLOUR = (40, 120, 200)
TOLERANCE = 8


def require() -> None:
    """Raise unless nvImageCodec is installed.

    Raises
    ------
    ImportError
        It is not; says how to get it.
    """
    try:
        found = importlib.util.find_spec(PACKAGE)
    except ModuleNotFoundError:  # of the package around it
        found = None
    if found is None:
        raise ImportError(
            "decoder 'nvimgcodec' needs NVIDIA's nvImageCodec, which is not installed: pip install "
            '"gpusift[nvimgcodec]" for CUDA 13 and for the CPU, "gpusift[nvimgcodec-cuda12]" for CUDA 12'
        )


def pixels_of(devices: Sequence[str]) -> str:
    """Say whose pixels nvImageCodec gives on some devices, for the settings of a sink.

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
        There are both: pixels would depend on who took an image.
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
    """Decodes JPEG files to grey pictures on a device, for one thread at a time; others wait.

    Parameters
    ----------
    device : Device
        Where the pictures are to be.
    n_threads : int
        CPU threads, which do a part of the work on a GPU too.

    Raises
    ------
    ImportError
        nvImageCodec is not installed, or cannot be imported.
    RuntimeError
        It does not decode on that device; says what may be missing.
    """

    def __init__(self, device: Device, n_threads: int) -> None:
        require()
        self._codec = _load()
        self._device, self._on_cpu = device, device.name == "cpu"
        kinds = self._codec.BackendKind
        chosen = [kinds.CPU_ONLY] if self._on_cpu else [kinds.GPU_ONLY, kinds.HYBRID_CPU_GPU]
        number = self._codec.NVIMGCODEC_DEVICE_CPU_ONLY if self._on_cpu else device.index  # type: ignore[union-attr]
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
            As for `gpusift.images.decode`; larger pictures are made smaller on the host, by OpenCV, and stay there.

        Returns
        -------
        decoded : list of Decoded or None
            In the files' order: uint8, complete, on the device, grey as `cv2.cvtColor` makes it, turned upright. None
            for a file that nvImageCodec declines.

        Raises
        ------
        MemoryError
            The device's memory does not suffice.
        """
        found: list[Decoded | None] = [None] * len(jpegs)
        with self._lock, ExitStack() as stack:
            if not self._on_cpu:
                stack.enter_context(self._device.active())
                stack.enter_context(self._stream)
            for numbers in _batches(jpegs):
                pictures = self._decode([jpegs[number] for number in numbers])
                for number, picture in zip(numbers, pictures, strict=True):
                    if picture is not None:
                        large = max_size is not None and max(picture.shape) > max_size
                        found[number] = smaller(self._device.to_host(picture) if large else picture, max_size, "")
        return found

    def _decode(self, jpegs: list[PlainJpeg]) -> list[Any]:
        """Decode files that are all grey, or all colour, in one call on the current stream, and wait for it."""
        codec, grey = self._codec, jpegs[0].grey
        params = codec.DecodeParams(
            apply_exif_orientation=False, color_spec=codec.ColorSpec.GRAY if grey else codec.ColorSpec.SRGB
        )
        stream = 0 if self._on_cpu else self._stream.ptr
        images = self._decoder.decode(
            [codec.CodeStream(jpeg.data) for jpeg in jpegs], params=params, cuda_stream=stream
        )
        pictures = [self._picture(image, jpeg) for image, jpeg in zip(images, jpegs, strict=True)]
        if not self._on_cpu:
            self._device.synchronize()  # before the colours, which `images` holds, are freed, and other streams read
        return pictures

    def _picture(self, image: Any, jpeg: PlainJpeg) -> Any:
        """Make an upright grey picture of what was decoded; None if nothing was, or another shape than declared."""
        if image is None:
            return None
        pixels = np.asarray(image.cpu()) if self._on_cpu else self._device.xp.asarray(image)
        if pixels.shape != (*jpeg.shape, 1 if jpeg.grey else 3) or pixels.dtype != np.uint8:
            return None
        stored = pixels[..., 0] if jpeg.grey else self._grey(pixels)
        return self._device.xp.array(jpeg.upright(stored), order="C")

    def _grey(self, rgb: Any) -> Any:
        """Make grey of (M, N, 3) red, green, blue as `cv2.cvtColor` does."""
        if self._on_cpu:
            import cv2

            return cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
        return grey_of(rgb)

    def _check(self) -> None:
        import cv2

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
            raise RuntimeError(f"a picture of one colour is off by {off} of 255")


def grey_of(rgb: Any) -> Any:
    """Make grey of colours, with the bits of `cv2.cvtColor`.

    Parameters
    ----------
    rgb : (M, N, 3) uint8 array
        Red, green, blue; NumPy's or CuPy's.

    Returns
    -------
    (M, N) uint8 array
        Of the same kind.
    """
    total = rgb[..., 0].astype(np.int32)
    total *= RGB_TO_GREY_15[0]
    for channel in (1, 2):
        part = rgb[..., channel].astype(np.int32)
        part *= RGB_TO_GREY_15[channel]
        total += part
    total += 1 << 14
    total >>= 15
    return total.astype(np.uint8)


def _batches(jpegs: Sequence[PlainJpeg]) -> Iterator[list[int]]:
    """Numbers of files of one kind that are decoded at once, within BATCH_PIXELS if there are several."""
    for grey in (False, True):
        batch: list[int] = []
        pixels = 0
        for number, jpeg in enumerate(jpegs):
            if jpeg.grey != grey:
                continue
            size = jpeg.shape[0] * jpeg.shape[1]
            if batch and pixels + size > BATCH_PIXELS:
                yield batch
                batch, pixels = [], 0
            batch.append(number)
            pixels += size
        if batch:
            yield batch


def _load() -> Any:
    """Import the package, with its log off unless the environment asks for it.

    What it declines is told by us; lines of its log would be taken for a decoder's complaint about a picture.
    """
    asked = VERBOSITY in os.environ
    os.environ.setdefault(VERBOSITY, "0")
    try:
        from nvidia import nvimgcodec
    finally:
        if not asked:
            os.environ.pop(VERBOSITY, None)
    return nvimgcodec
