"""The public interface of SIFT: attributes, features, threads, images without features."""

import threading

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from gpusift import SIFT, Features
from tests.support import oracle
from tests.support.arrays import COLUMNS, IMAGE, assert_equal_bytes, extracted

# ---- attributes


def test_attributes_before_an_image():
    sift = SIFT(upsampling=1, n_octaves=5)
    for name in (*COLUMNS, "keypoints", "scalespace_sigmas"):
        assert getattr(sift, name) is None, name
    assert sift.n_octaves == 5
    assert sift.upsampling == 1
    assert sift.delta_min == 1.0
    assert_array_equal(sift.deltas, [1, 2, 4, 8, 16])


def test_parameters_are_scikit_images():
    theirs = oracle.run(IMAGE, upsampling=1, n_scales=5, c_dog=0.01).sift
    sift = extracted(IMAGE, upsampling=1, n_scales=5, c_dog=0.01)
    taken = ("upsampling", "n_octaves", "n_scales", "sigma_in", "c_edge", "n_bins", "lambda_ori", "c_max", "delta_min")
    for name in (*taken, "lambda_descr", "n_hist", "n_ori"):
        assert getattr(sift, name) == getattr(theirs, name), name
    assert sift.sigma_min == pytest.approx(theirs.sigma_min)
    assert sift.c_dog == pytest.approx(theirs.c_dog)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("precision", [str, np.dtype, lambda name: getattr(np, name)])
def test_attributes_after_an_image(device, dtype, precision):
    sift = extracted(IMAGE, n_hist=3, n_ori=5, device=device, dtype=precision(dtype))
    n = len(sift.keypoints)
    assert n > 0
    expected = {
        "keypoints": ((n, 2), np.int64),
        "positions": ((n, 2), dtype),
        "sigmas": ((n,), dtype),
        "orientations": ((n,), dtype),
        "descriptors": ((n, 45), np.uint8),
    }
    for name, (shape, of_dtype) in expected.items():
        value = getattr(sift, name)
        assert type(value) is np.ndarray, name
        assert value.shape == shape, name
        assert value.dtype == of_dtype, name
    for name in ("scales", "octaves"):
        assert getattr(sift, name).shape == (n,)
        assert getattr(sift, name).dtype.kind == "i", name
    assert sift.float_dtype == np.dtype(dtype)
    assert sift.scalespace_sigmas.shape == (sift.n_octaves, 6)
    assert sift.deltas.shape == (sift.n_octaves,)
    # units: input pixels and radians
    assert ((sift.positions > 0) & (sift.positions < IMAGE.shape)).all()
    assert (sift.sigmas > 0.4 * 2.0**sift.octaves).all()
    assert (np.abs(sift.orientations) <= np.pi + 1e-6).all()
    assert sift.scales.min() >= 1
    assert sift.scales.max() <= 3
    assert device in sift.device.name


def test_an_image_does_not_change_the_object(device):
    """A small image lowers scikit-image's n_octaves for good; ours is restored."""
    sift = SIFT(device=device)
    sift.detect_and_extract(IMAGE)
    octaves = sift.n_octaves
    sift.detect_and_extract(IMAGE[:40, :60])
    assert sift.n_octaves < octaves
    sift.detect_and_extract(IMAGE)
    assert sift.n_octaves == octaves
    assert_equal_bytes(sift, extracted(IMAGE, device=device))


def test_the_image_is_not_changed(device):
    for image in (IMAGE.copy(), IMAGE / 255, (IMAGE / 255).astype(np.float32)):
        before = image.copy()
        image.setflags(write=False)
        extracted(image, device=device, dtype=np.float32)
        extracted(image, device=device, dtype=np.float64)
        assert_array_equal(image, before)


def test_attributes_are_not_overwritten_later(device):
    """Arrays taken from the object do not change when it computes another image."""
    sift = SIFT(device=device)
    sift.detect_and_extract(IMAGE)
    taken = {name: getattr(sift, name) for name in COLUMNS}
    copies = {name: value.copy() for name, value in taken.items()}
    sift.detect_and_extract(IMAGE[::-1])
    for name in COLUMNS:
        assert_array_equal(taken[name], copies[name])


def test_numbers_of_numpy_are_parameters():
    sift = extracted(IMAGE, n_scales=np.int32(3), n_hist=np.uint8(4), c_edge=np.float32(10))
    assert_equal_bytes(sift, extracted(IMAGE))


def test_parameters_are_positional_as_scikit_images():
    args = (1, 3, 2, 1.5, 0.4, 0.01, 8, 30, 1.4, 0.7, 5, 3, 6)
    theirs = type(oracle.run(IMAGE).sift)(*args)
    theirs.detect_and_extract(IMAGE)
    sift = SIFT(*args, device="cpu", dtype="float64")
    sift.detect_and_extract(IMAGE)
    np.testing.assert_allclose(sift.positions, theirs.positions, atol=1e-6)
    with pytest.raises(TypeError, match="positional"):
        SIFT(*args, "cpu")


# ---- features


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_compute_is_detect_and_extract(device, dtype):
    sift = extracted(IMAGE, device=device, dtype=dtype)
    features = SIFT(device=device, dtype=dtype).compute(IMAGE).to_host()
    for name in COLUMNS:
        assert_array_equal(getattr(features, name), getattr(sift, name), err_msg=name)
    assert_array_equal(features.keypoints, sift.keypoints)
    assert features.responses.shape == (len(features),)
    assert (np.abs(features.responses) > sift.c_dog).all()


def test_compute_leaves_the_attributes(device):
    sift = extracted(IMAGE, device=device)
    positions = sift.positions
    sift.compute(IMAGE[:60, :60])
    assert sift.positions is positions


def test_compute_batch_is_compute_of_each(device):
    """Images of several shapes and dtypes, one without features; and no images."""
    images = [
        IMAGE,
        IMAGE[::-1],
        IMAGE[:90, :80] / 255,
        np.zeros((50, 50)),
        IMAGE[:, :150].astype(np.uint16) * 257,
        IMAGE,
    ]
    sift = SIFT(device=device)
    batch = sift.compute_batch(images)
    assert len(batch) == len(images)
    for features, image in zip(batch, images, strict=True):
        assert_equal_bytes(features.to_host(), sift.compute(image).to_host())
    assert len(batch[3]) == 0
    assert sift.compute_batch([]) == []
    assert len(sift.compute_batch(image for image in images)) == len(images)


def test_indexing_features(device):
    features = SIFT(device=device).compute(IMAGE).to_host()
    mask = features.sigmas > np.median(features.sigmas)
    order = np.argsort(features.responses)[::-1]
    for index in (mask, slice(3, 40, 2), order, [4, 2, 2], slice(0, 0)):
        part = features[index]
        assert isinstance(part, Features)
        assert len(part) == len(features.positions[index])
        for name, array in features.arrays().items():
            assert_array_equal(getattr(part, name), array[index])
        assert part.provenance == features.provenance
    with pytest.raises(IndexError):
        features[np.ones(len(features) + 1, dtype=bool)]


def test_features_are_frozen():
    features = SIFT(device="cpu").compute(IMAGE)
    with pytest.raises(AttributeError):
        features.positions = None


@pytest.mark.gpu
def test_cupy_in_cupy_out():
    import cupy

    features = SIFT(device="cuda").compute(cupy.asarray(IMAGE))
    assert isinstance(features.positions, cupy.ndarray)
    assert isinstance(features.descriptors, cupy.ndarray)
    assert_equal_bytes(features.to_host(), SIFT(device="cuda").compute(IMAGE).to_host())
    sift = extracted(cupy.asarray(IMAGE), device="cuda")
    assert isinstance(sift.descriptors, cupy.ndarray)


def test_dlpack_in(device):
    """An array of another library is taken by DLPack."""

    class Foreign:
        def __init__(self, array):
            self.array = array

        def __dlpack__(self, **options):
            return self.array.__dlpack__(**options)

        def __dlpack_device__(self):
            return self.array.__dlpack_device__()

    image = np.ascontiguousarray(IMAGE)
    features = SIFT(device=device).compute(Foreign(image)).to_host()
    assert_equal_bytes(features, SIFT(device=device).compute(image).to_host())


# ---- repeatability


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_threads(device, dtype):
    """Several objects in several threads give the results of one object alone."""
    images = [oracle.photograph(name)[:150, :180] for name in ("coins", "brick", "text", "page")]
    alone = [extracted(image, device=device, dtype=dtype) for image in images]
    together = [[SIFT(device=device, dtype=dtype) for _ in range(3)] for _ in images]
    errors = []

    def work(objects, image):
        try:
            for sift in objects:
                sift.detect_and_extract(image)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=pair) for pair in zip(together, images, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    for objects, expected in zip(together, alone, strict=True):
        for sift in objects:
            assert_equal_bytes(sift, expected)


def test_one_object_in_several_threads(device):
    images = [oracle.photograph(name)[:150, :180] for name in ("coins", "brick", "text", "page")]
    sift = SIFT(device=device)
    alone = [sift.compute(image).to_host() for image in images]
    together = [None] * len(images)

    def work(i):
        together[i] = sift.compute(images[i]).to_host()

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(images))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for features, expected in zip(together, alone, strict=True):
        assert_equal_bytes(features, expected)


# ---- no features


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_no_features(device, dtype):
    sift = SIFT(device=device, dtype=dtype)
    for image in (np.ones((128, 128)), np.zeros((40, 70), dtype=np.uint8)):
        features = sift.compute(image).to_host()
        assert len(features) == 0
        assert features.positions.shape == (0, 2)
        assert features.positions.dtype == dtype
        assert features.descriptors.shape == (0, 128)
        assert features.descriptors.dtype == np.uint8
        assert features.keypoints.shape == (0, 2)
        for method in (sift.detect, sift.detect_and_extract):
            with pytest.raises(RuntimeError, match="no features"):
                method(image)
    sift.detect_and_extract(IMAGE)
    assert len(sift.keypoints) > 0


@pytest.mark.parametrize("upsampling", [1, 2, 4])
def test_small_images(device, upsampling):
    """Every size down to one pixel; scikit-image fails below 12 samples a side."""
    rng = np.random.default_rng(0)
    sift = SIFT(upsampling=upsampling, sigma_in=0.3, device=device)
    for rows in (1, 2, 3, 5, 6, 11, 12, 14):
        for cols in (1, 2, 3, 4, 6, 7, 11, 13, 24):
            image = rng.random((rows, cols))
            features = sift.compute(image).to_host()
            if min(rows, cols) * upsampling < 12:
                assert len(features) == 0
                with pytest.raises(RuntimeError, match="no features"):
                    sift.detect_and_extract(image)
            assert features.descriptors.shape == (len(features), 128)


@pytest.mark.parametrize("dtype", [">u2", ">i2", ">f4", ">f8"])
def test_byte_orders_other_than_the_machines(device, dtype):
    image = (oracle.photograph("coins")[:120, :150] * (1 / 255 if "f" in dtype else 100)).astype(dtype)
    foreign = SIFT(device=device).compute(image).to_host()
    native = SIFT(device=device).compute(image.astype(image.dtype.newbyteorder("="))).to_host()
    np.testing.assert_array_equal(foreign.descriptors, native.descriptors)
