"""JPEG by nvImageCodec: OpenCV's pixels on the CPU, near ones on a GPU, and OpenCV's word on all that is not plain.

On the CPU the package runs without a driver, so what is tested here is the real thing, but for nvJPEG.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import cv2
import h5py
import numpy as np
import pytest

from gpusift import SIFT, stream
from gpusift.devices import cuda_info, get_device
from gpusift.distributed import require_device
from gpusift.images import ImageReadError, decode, nvimgcodec
from gpusift.images.jpeg import plain_jpeg
from gpusift.images.nvimgcodec import JpegDecoder, grey_of, pixels_of
from gpusift.images.reader import Decoding
from gpusift.images.stderr import Listener
from gpusift.sources import Source
from gpusift.stream import RunError, extract, processes, settings_of
from gpusift.stream.worker import DECLINED, worker_here
from tests.support.command import run
from tests.support.jpegs import COLOUR, SAMPLINGS, encoded, exif, with_segment
from tests.support.memory_sink import MemorySink, run_here
from tests.support.pictures import blobs
from tests.support.same_bytes import digest, synthetic

SCRIPT = [sys.executable, "-c", "from gpusift.cli import main; main()"]

# Levels of 255 between our grey pixels and OpenCV's, of pictures without noise. On the CPU none was seen (nvImageCodec
# 0.9.0, OpenCV 5.0.0, all samplings); nvJPEG has not been seen running, and may round its transforms otherwise.
ALLOWED = {"cpu": 0, "cuda": 8}


@pytest.fixture
def codec():
    """The package; on a GPU, for a version of CUDA that the driver knows."""
    return pytest.importorskip("nvidia.nvimgcodec", reason='the package is missing: pip install "gpusift[nvimgcodec]"')


@pytest.fixture
def decoder(codec, device, request) -> JpegDecoder:
    if device == "cuda" and request.config.getoption("--cuda-standin") is not None:
        pytest.skip("nvImageCodec decodes on a GPU, not on the stand-in for CuPy")
    needed, there = codec.__cuda_version__ // 1000, cuda_info().get("cuda_driver")
    if device == "cuda" and needed > int(there.split(".")[0]):
        pytest.skip(f"nvImageCodec is for CUDA {needed}, and the driver for {there}")
    return JpegDecoder(get_device(device), 2)


def assert_near(decoded, expected, device) -> None:
    image = get_device(device).to_host(decoded.image)
    assert image.dtype == np.uint8
    assert (decoded.shape, image.shape) == (expected.shape, expected.image.shape)
    assert np.abs(image.astype(int) - expected.image).max(initial=0) <= ALLOWED[device]


@pytest.mark.parametrize("progressive", [0, 1])
@pytest.mark.parametrize("interval", [0, 3])
@pytest.mark.parametrize("sampling", [*SAMPLINGS, "grey"])
def test_pixels_are_opencvs(decoder, device, progressive, interval, sampling):
    options = {"PROGRESSIVE": progressive, "RST_INTERVAL": interval}
    if sampling == "grey":
        data = encoded(COLOUR[..., 0], **options)
    else:
        data = encoded(COLOUR, SAMPLING_FACTOR=SAMPLINGS[sampling], **options)
    (decoded,) = decoder.decode([plain_jpeg(data)])
    assert_near(decoded, decode(data, "a"), device)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("image", [COLOUR, COLOUR[..., 0]], ids=["colour", "grey"])
def test_exif_orientation(decoder, device, orientation, image):
    data = with_segment(encoded(image), 0xE1, exif(orientation))
    for switch in (True, False):
        (decoded,) = decoder.decode([plain_jpeg(data, exif_orientation=switch)])
        assert decoded.image.flags.c_contiguous
        assert_near(decoded, decode(data, "a", exif_orientation=switch), device)


def test_several_at_once_come_in_their_order(decoder, device, monkeypatch):
    images = [COLOUR[:20], COLOUR[..., 0], COLOUR[:, :31], COLOUR[:1, :1], COLOUR[3:, :9, 0], COLOUR]
    files = [encoded(np.ascontiguousarray(image)) for image in images]
    for pixels in (1, 2000, 1 << 27):  # at once: none fits, some do, all do
        monkeypatch.setattr(nvimgcodec, "BATCH_PIXELS", pixels)
        found = decoder.decode([plain_jpeg(data) for data in files])
        for data, decoded in zip(files, found, strict=True):
            assert_near(decoded, decode(data, "a"), device)
    assert decoder.decode([]) == []


def test_max_size(decoder, device):
    data = with_segment(encoded(COLOUR), 0xE1, exif(6))
    (decoded,) = decoder.decode([plain_jpeg(data)], max_size=30)
    expected = decode(data, "a", max_size=30)
    assert_near(decoded, expected, device)
    assert (decoded.scale, decoded.image.shape) == (expected.scale, (30, 20))


def test_a_colour_profile_changes_no_pixel(decoder, device):
    profile = b"ICC_PROFILE\0\1\1" + bytes(128) + bytes(4)
    (decoded,) = decoder.decode([plain_jpeg(with_segment(encoded(), 0xE2, profile))])
    assert_near(decoded, decode(encoded(), "a"), device)


def test_what_is_declined_is_none_and_the_rest_is_there(codec):
    decoder, jpeg = JpegDecoder(get_device("cpu"), 2), plain_jpeg(encoded())
    half = replace(jpeg, data=jpeg.data[: len(jpeg.data) // 2])
    other = replace(jpeg, shape=(45, 66))
    text = replace(jpeg, data=b"<html>")
    found = decoder.decode([half, jpeg, other, text, jpeg])
    assert [decoded is None for decoded in found] == [True, False, True, True, False]


def test_damaged_files_are_judged_as_opencv_judges_them(decoder, device):
    """Bytes changed, taken out or put in, anywhere; 200 files that are still plain, or were until they were decoded."""
    rng, outcomes = np.random.default_rng(0), {True: 0, False: 0}
    options = [{"PROGRESSIVE": progressive, "RST_INTERVAL": each} for progressive in (0, 1) for each in (0, 3)]
    files = [encoded(**each) for each in options]
    while sum(outcomes.values()) < 200:
        data = bytearray(files[rng.integers(len(files))])
        at, length = int(rng.integers(2, len(data))), int(rng.integers(0, 20))
        data[at : at + int(rng.integers(0, 20))] = rng.integers(0, 256, length, dtype=np.uint8).tobytes()
        jpeg = plain_jpeg(bytes(data))
        if jpeg is None or jpeg.shape[0] * jpeg.shape[1] > 1 << 20:
            continue
        (decoded,) = decoder.decode([jpeg])
        try:
            expected = decode(bytes(data), "a")
        except ImageReadError:
            expected = None
        outcomes[expected is not None] += 1
        if device == "cpu":  # nvJPEG may be of another mind; here it is enough that nothing else happens
            assert (decoded is None) == (expected is None)
            if decoded is not None:
                assert_near(decoded, expected, device)
    assert min(outcomes.values()) > 0


def test_grey_has_the_bits_of_opencv(device):
    """For every colour."""
    device = get_device(device)
    second, third = np.mgrid[:256, :256].astype(np.uint8)
    for first in range(256):
        rgb = np.dstack([np.full_like(second, first), second, third])
        grey = device.to_host(grey_of(device.xp.asarray(rgb)))
        np.testing.assert_array_equal(grey, cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY))


def test_on_a_gpu_its_stream_is_waited_for(codec, monkeypatch):
    """With the CPU's decoder in place of the GPU's: what is asked of it, where, and when it is waited for."""
    told = []

    class Stream:
        ptr = 1234

        def __enter__(self):
            told.append("in the stream")

        def __exit__(self, *_):
            told.append("out of it")

    class Decoder:
        def __init__(self, device_id, max_num_cpu_threads, backends):
            told.append((device_id, max_num_cpu_threads, backends))
            only = codec.Backend(codec.BackendKind.CPU_ONLY)
            self.real = codec.Decoder(device_id=codec.NVIMGCODEC_DEVICE_CPU_ONLY, backends=[only])

        def decode(self, streams, params, cuda_stream):
            told.append((len(streams), params.color_spec, cuda_stream))
            return self.real.decode(streams, params=params)

    @contextmanager
    def active():
        told.append("on the device")
        yield

    device = SimpleNamespace(name="cuda:3", cuda_index=3, xp=np, active=active, stream=Stream, to_host=np.asarray)
    device.synchronize = lambda: told.append("waited")
    names = ("BackendKind", "ColorSpec", "DecodeParams", "CodeStream", "NVIMGCODEC_DEVICE_CPU_ONLY")
    fake = SimpleNamespace(Decoder=Decoder, Backend=str, **{name: getattr(codec, name) for name in names})
    monkeypatch.setattr(nvimgcodec, "_load", lambda: fake)
    decoder = JpegDecoder(device, 5)
    assert told[0] == (3, 5, [str(codec.BackendKind.GPU_ONLY), str(codec.BackendKind.HYBRID_CPU_GPU)])

    del told[:]
    files = [encoded(), encoded(COLOUR[..., 0]), encoded()]
    found = decoder.decode([plain_jpeg(data) for data in files])
    for data, decoded in zip(files, found, strict=True):
        np.testing.assert_array_equal(decoded.image, decode(data, "a").image)
    colours, grey = (2, codec.ColorSpec.SRGB, 1234), (1, codec.ColorSpec.GRAY, 1234)
    assert told == ["on the device", "in the stream", colours, "waited", grey, "waited", "out of it"]


def test_a_device_that_it_cannot_decode_on_is_an_error(codec):
    if "error" not in cuda_info():
        pytest.skip("this machine has a GPU")

    @contextmanager
    def active():
        yield

    device = SimpleNamespace(name="cuda:0", cuda_index=0, xp=np, active=active, stream=active)
    with pytest.raises(RuntimeError, match=r"must decode JPEG on cuda:0, but does not .*pip install"):
        JpegDecoder(device, 1)


@pytest.mark.parametrize("picture", [None, np.full((32, 32), 200, np.uint8)])
def test_a_decoder_that_does_not_work_is_found_at_once(codec, monkeypatch, picture):
    monkeypatch.setattr(JpegDecoder, "_decode", lambda self, jpegs: [picture])
    with pytest.raises(RuntimeError, match=r"must decode JPEG on cpu, but does not \((it declines|.* is off by)"):
        JpegDecoder(get_device("cpu"), 1)


def test_importing_it_leaves_the_environment_alone(codec, monkeypatch):
    for given in (None, "3"):
        if given:
            monkeypatch.setenv(nvimgcodec.VERBOSITY, given)
        nvimgcodec._load()
        assert nvimgcodec.os.environ.get(nvimgcodec.VERBOSITY) == given


# Settings


def test_pixels_are_a_gpus_or_the_cpus():
    assert pixels_of(["cpu", "cpu"]) == "nvimgcodec on cpu"
    assert pixels_of(["cuda", "cuda:0", "cuda:1"]) == "nvimgcodec on cuda"
    assert pixels_of(["auto"]) == f"nvimgcodec on {'cpu' if 'error' in cuda_info() else 'cuda'}"
    with pytest.raises(ValueError, match=r"must be all GPUs or all 'cpu', .* got cuda:0, cpu"):
        pixels_of(["cuda:0", "cpu"])


def test_settings_tell_whose_pixels():
    assert settings_of({})["decoder"] == "opencv"
    on_cpu, on_gpu = (settings_of({"device": name}, decoder="nvimgcodec") for name in ("cpu", "cuda:1"))
    assert (on_cpu["decoder"], on_gpu["decoder"]) == ("nvimgcodec on cpu", "nvimgcodec on cuda")


def test_another_name_is_refused():
    with pytest.raises(ValueError, match="decoder must be 'opencv' or 'nvimgcodec', got 'pillow'"):
        Decoding(decoder="pillow")
    with pytest.raises(ValueError, match="decoder must be"):
        extract([], "out", decoder="pillow")


def test_workers_of_a_cluster_must_not_choose():
    require_device({}, "opencv")
    require_device({"device": "cuda"}, "nvimgcodec")
    with pytest.raises(ValueError, match="on a cluster, device must be 'cuda' or 'cpu', got 'auto'"):
        require_device({}, "nvimgcodec")


@pytest.fixture
def no_package(monkeypatch):
    def find_spec(name):
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(importlib.util, "find_spec", find_spec)


def test_a_missing_package_is_told_before_anything_is_done(no_package):
    wanted = r"needs NVIDIA's nvImageCodec, which is not installed: pip install \"gpusift\[nvimgcodec\]\""
    with pytest.raises(ImportError, match=wanted):
        extract([], "out", {"device": "cpu"}, decoder="nvimgcodec")
    with pytest.raises(ImportError, match=wanted):
        processes.workers(["cpu"], {}, decoding=Decoding(decoder="nvimgcodec"))
    with pytest.raises(ImportError, match=wanted):
        JpegDecoder(get_device("cpu"), 1)


# The stream

N_OCTAVES = 2


class FeaturesSink(MemorySink):
    """A sink that keeps features, and shapes."""

    def __init__(self) -> None:
        super().__init__(keep=lambda *result: result)

    @property
    def features(self) -> dict:
        return {name: features for name, (features, _) in self.written.items()}

    @property
    def shapes(self) -> dict:
        return {name: tuple(shape) for name, (_, shape) in self.written.items()}


def photograph(seed: int, shape: tuple[int, int] = (90, 120)) -> np.ndarray:
    """A colour picture with blobs."""
    return cv2.merge([synthetic(*shape, seed=seed + channel) for channel in range(3)])


HUGE = encoded().replace(b"\xff\xc0\0\x11\x08\0\x2d\0\x43", b"\xff\xc0\0\x11\x08\xff\xff\xff\xff")
CUT_BUT_ENDED = encoded(photograph(9))[:-1500] + b"\xff\xd9"


@pytest.fixture
def folder(tmp_path) -> Path:
    """Files of all sorts; the first letter says whether features come of them."""
    files = {f"f{seed}.jpg": encoded(photograph(seed)) for seed in range(4)}
    files |= {"f-grey.jpg": encoded(synthetic(80, 130)), "f-progressive.jpg": encoded(photograph(5), PROGRESSIVE=1)}
    files |= {"f-restarts.jpg": encoded(photograph(6), RST_INTERVAL=2), "f-cut-but-ended.jpg": CUT_BUT_ENDED}
    files |= {f"f-turned{turn}.jpg": with_segment(encoded(photograph(7)), 0xE1, exif(turn)) for turn in (3, 6)}
    files |= {"f-other.png": cv2.imencode(".png", photograph(8))[1].tobytes()}
    whole = files["f0.jpg"]
    files |= {"x-cut.jpg": whole[: len(whole) // 2], "x-without-end.jpg": whole[:-2], "x-empty.jpg": b""}
    files |= {"x-huge.jpg": HUGE, "x-text.jpg": b"<html>", "x-12-bits.jpg": whole.replace(b"\0\x11\x08", b"\0\x11\x0c")}
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    return tmp_path


def sources(folder: Path) -> list[Source]:
    return [Source(path.name, str(path)) for path in sorted(folder.iterdir())]


def extracted(folder: Path, decoder: str, device: str = "cpu", **options) -> tuple[FeaturesSink, list[dict]]:
    sink, events = FeaturesSink(), []
    sift = SIFT(device=device, n_octaves=N_OCTAVES)
    with Listener() as listener:
        how = {"listener": listener, "on_event": events.append, **options}
        run_here(sources(folder), sink, sift, decoder=decoder, **how)
    return sink, [event for event in events if event["event"] == "warning"]


@pytest.mark.parametrize(
    "options", [{}, {"batch_size": 3, "n_decoders": 4}, {"max_size": 50}, {"exif_orientation": False}]
)
def test_the_stream_gives_what_it_gives_with_opencv(decoder, folder, device, options):
    sink, warnings = extracted(folder, "nvimgcodec", device, **options)
    expected, same_warnings = extracted(folder, "opencv", device, **options)
    assert sink.shapes == expected.shapes
    assert set(sink.shapes) == {path.name for path in folder.glob("f*")}
    assert sink.failed == expected.failed
    assert "65535 x 65535" in sink.failed["x-huge.jpg"]
    for name, features in sink.features.items():
        if ALLOWED[device] == 0 or name.endswith("png"):
            assert digest(features) == digest(expected.features[name]), name
        else:
            assert share_found(features, expected.features[name]) > 0.9, name
    if device == "cpu":  # whether nvJPEG tells of broken data is not known
        assert warnings == same_warnings
        assert {event["name"] for event in warnings} == {"f-cut-but-ended.jpg"}


def share_found(features, expected) -> float:
    """The share of keypoints that have another one within half a pixel."""
    distances = np.linalg.norm(features.positions[:, None] - expected.positions, axis=2)
    return np.mean([*(distances.min(axis=1) < 0.5), *(distances.min(axis=0) < 0.5)])


@pytest.mark.parametrize("why", ["declined", "no memory"])
def test_opencv_decodes_what_is_declined_and_says_so(codec, folder, monkeypatch, why):
    expected, _ = extracted(folder, "opencv")
    real = JpegDecoder.decode

    def refuse(self, jpegs, max_size=None):
        if not any(jpeg.shape == (90, 120) for jpeg in jpegs):  # as is the one at the start
            return real(self, jpegs, max_size)
        if why == "no memory":
            raise MemoryError("out of device memory")
        return [None if jpeg.shape == (90, 120) else real(self, [jpeg], max_size)[0] for jpeg in jpegs]

    monkeypatch.setattr(JpegDecoder, "decode", refuse)
    sink, warnings = extracted(folder, "nvimgcodec", n_decoders=1)
    assert {name: digest(found) for name, found in sink.features.items()} == {
        name: digest(found) for name, found in expected.features.items()
    }
    assert sink.failed == expected.failed
    told = {event["name"] for event in warnings if event["message"] == DECLINED}
    assert {"f0.jpg", "f1.jpg", "f-progressive.jpg"} <= told
    assert "f-other.png" not in told


def test_a_gpu_that_fails_while_decoding_stops_the_run_and_blames_no_image(codec, folder, monkeypatch):
    class CUDARuntimeError(RuntimeError):
        __module__ = "cupy_backends.cuda.api.runtime"

    class Broken(JpegDecoder):
        def decode(self, jpegs, max_size=None):
            raise CUDARuntimeError("cudaErrorIllegalAddress")

        def _check(self):
            pass

    monkeypatch.setattr(nvimgcodec, "JpegDecoder", Broken)
    sink = FeaturesSink()
    with pytest.raises(RunError, match="compute: cudaErrorIllegalAddress") as caught:
        run_here(sources(folder), sink, SIFT(device="cpu"), decoder="nvimgcodec")
    assert caught.value.stage == "compute"
    assert not [name for name in sink.failed if name.startswith("f")]


def test_sources_are_taken_only_so_far_ahead(codec, folder):
    batch_size, n_decoders, taken, ahead = 3, 2, 0, []
    one = str(folder / "f0.jpg")

    def endless() -> Iterator[Source]:
        nonlocal taken
        for taken in range(1, 200):
            yield Source(f"{taken}.jpg", one)

    class Counting(FeaturesSink):
        def write(self, name, features, shape, url=None):
            ahead.append(taken - len(self.features))
            super().write(name, features, shape)

    sink = Counting()
    how = {"batch_size": batch_size, "n_decoders": n_decoders, "decoder": "nvimgcodec"}
    run_here(endless(), sink, SIFT(device="cpu", n_octaves=1, upsampling=1), **how)
    assert len(sink.features) == 199
    queues = 2 * stream.QUEUE_LENGTH + 2 * batch_size  # sources, results, files, pictures
    in_hand = 1 + n_decoders + 3 * batch_size  # fed, read, decoded, computed
    assert max(ahead) <= queues + in_hand


def test_a_stop_finishes_what_is_computed(codec, folder):
    sink, stop = FeaturesSink(), threading.Event()
    sift = SIFT(device="cpu", n_octaves=N_OCTAVES)
    summary = run_here(sources(folder), sink, sift, decoder="nvimgcodec", stop=stop, on_event=lambda event: stop.set())
    assert sink.committed == set(sink.features)
    again = run_here(sources(folder), sink, sift, decoder="nvimgcodec")
    assert again.skipped == summary.images
    assert set(sink.features) == {path.name for path in folder.glob("f*")}


def test_several_devices_and_a_decoder_of_ones_own(codec, folder):
    expected, _ = extracted(folder, "opencv")
    decoding = Decoding(decoder="nvimgcodec")
    sift = SIFT(device="cpu", n_octaves=N_OCTAVES)
    mine = JpegDecoder(sift.device, 2)
    for workers in (
        processes.workers(["cpu", "cpu"], {"n_octaves": N_OCTAVES}, decoding=decoding),
        [worker_here(sift, decoding=decoding, jpeg_decoder=mine) for _ in range(2)],  # as in two threads of Dask's
    ):
        sink = FeaturesSink()
        stream.run(sources(folder), sink, workers)
        assert {name: digest(found) for name, found in sink.features.items()} == {
            name: digest(found) for name, found in expected.features.items()
        }


# The command


@pytest.fixture
def photos(tmp_path, monkeypatch) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for seed in range(2):
        (folder / f"{seed}.jpg").write_bytes(encoded(cv2.merge([blobs(seed), blobs(2), blobs(3)])))
    monkeypatch.chdir(tmp_path)
    SIFT(device="cpu").compute(blobs(0))  # a checkout builds its kernels on first use, and says so
    return folder


def contents(path: str) -> dict[str, np.ndarray]:
    found = {}
    with h5py.File(path) as file:
        file.visititems(lambda name, item: found.update({name: item[()]} if isinstance(item, h5py.Dataset) else {}))
    return found


def test_extract(codec, photos, capfd):
    Path("run.toml").write_text('decoder = "nvimgcodec"\nmax-keypoints = 50\n')
    assert run("extract", photos, "-o", "a.h5", "--device", "cpu", "--max-keypoints", 50).exit_code == 0
    result = run("extract", photos, "-o", "b.h5", "--device", "cpu", "--config", "run.toml", "--log-json", "log.jsonl")
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("2 of 2 images, ")
    assert result.stderr == capfd.readouterr().err == ""
    np.testing.assert_equal(contents("b.h5"), contents("a.h5"))
    start = json.loads(Path("log.jsonl").read_text().splitlines()[0])
    assert start["settings"]["decoder"] == "nvimgcodec on cpu"


@pytest.mark.parametrize("decoders", [("opencv", "nvimgcodec"), ("nvimgcodec", "opencv")])
def test_a_run_is_not_gone_on_with_by_another_decoder(codec, photos, decoders):
    names = {"opencv": "opencv", "nvimgcodec": "nvimgcodec on cpu"}
    command = ["extract", photos, "-o", "out", "--device", "cpu", "--max-keypoints", 50, "--decoder"]
    assert run(*command, decoders[0]).exit_code == 0
    result = run(*command, decoders[1])
    assert result.exit_code == 1
    recorded, now = (names[decoder] for decoder in decoders)
    assert f'got others: decoder was "{recorded}", is "{now}";' in result.stderr
    assert run(*command, decoders[1], "--overwrite").exit_code == 0
    assert run(*command, decoders[1]).stdout.startswith("0 of 2 images")


def test_a_missing_package_ends_the_command_before_anything_is_written(no_package, photos):
    for more in ([], ["--devices", "cpu,cpu"]):
        result = run("extract", photos, "-o", "out", "--device", "cpu", "--decoder", "nvimgcodec", *more)
        assert result.exit_code == 1
        assert result.stderr.startswith("Error: decoder 'nvimgcodec' needs NVIDIA's nvImageCodec")
        assert not Path("out").exists()


def test_a_cluster_needs_the_device(photos):
    pytest.importorskip("distributed")
    result = run("extract", photos, "-o", "out", "--dask", "tcp://nowhere:1", "--decoder", "nvimgcodec")
    assert result.exit_code == 1
    assert "device must be 'cuda' or 'cpu', got 'auto'" in result.stderr
    assert not Path("out").exists()


@pytest.mark.parametrize(
    "where", [["--device", "cpu"], ["--devices", "cpu,cpu"], ["--dask", "local:1", "--device", "cpu"]]
)
def test_processes_that_have_not_imported_it_yet(codec, photos, where):
    if "--dask" in where:
        pytest.importorskip("distributed")
    assert run("extract", photos, "-o", "a.h5", "--device", "cpu").exit_code == 0
    command = [*SCRIPT, "extract", "photos", "-o", "b.h5", *where, "--decoder", "nvimgcodec", "--log-json", "log.jsonl"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    if "--dask" not in where:  # what the package says of parts of it that are not needed goes into workers' logs there
        assert done.stderr == ""
    np.testing.assert_equal(contents("b.h5"), contents("a.h5"))
    start = json.loads(Path("log.jsonl").read_text().splitlines()[0])
    assert start["settings"]["decoder"] == "nvimgcodec on cpu"
