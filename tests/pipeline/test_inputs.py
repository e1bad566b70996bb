"""Wrong images, parameters and devices: errors that say what must hold and what was got."""

import numpy as np
import pytest

from gpusift import SIFT
from gpusift.devices import cuda_info
from tests.support.arrays import COLUMNS, IMAGE, assert_equal_bytes, extracted
from tests.support.same_bytes import digest

BAD_IMAGES = {
    "1-D": (np.zeros(5), ValueError, r"2-D.*\(5,\)"),
    "3-D": (np.zeros((40, 40, 3)), ValueError, r"2-D.*\(40, 40, 3\)"),
    "0-D": (np.float64(3), ValueError, r"2-D.*\(\)"),
    "no rows": (np.zeros((0, 5)), ValueError, r"\(0, 5\)"),
    "no columns": (np.zeros((5, 0)), ValueError, r"\(5, 0\)"),
    "a side that kernels cannot index": (
        np.broadcast_to(np.uint8(0), (1, 2**25 + 1)),
        ValueError,
        r"at most 33554432 pixels a side.*\(1, 33554433\)",
    ),
    "complex": (np.zeros((40, 40), complex), TypeError, "complex128"),
    "object": (np.zeros((40, 40), object), TypeError, "object"),
    "text": (np.full((40, 40), "a"), TypeError, "<U1"),
    "a text": ("image.png", TypeError, r"<U9|str|image\.png"),
    "dates": (np.zeros((40, 40), "datetime64[s]"), TypeError, "datetime64"),
    "None": (None, TypeError, "None|object"),
    "ragged": ([[1, 2], [3]], (TypeError, ValueError), "."),
    "NaN": (np.where(np.eye(40) > 0, np.nan, 0.5), ValueError, "(?i)finite.*nan|nan.*finite"),
    "infinite": (np.where(np.eye(40) > 0, np.inf, 0.5), ValueError, "(?i)finite.*inf|inf.*finite"),
    "-infinite": (np.where(np.eye(40) > 0, -np.inf, 0.5), ValueError, "(?i)finite"),
}


@pytest.mark.parametrize("method", ["detect", "extract", "detect_and_extract", "compute"])
@pytest.mark.parametrize("kind", BAD_IMAGES)
def test_wrong_images(device, kind, method):
    image, error, message = BAD_IMAGES[kind]
    sift = extracted(IMAGE, device=device)
    with pytest.raises(error, match=message):
        getattr(sift, method)(image)
    # the object still works
    sift.detect_and_extract(IMAGE)
    assert_equal_bytes(sift, extracted(IMAGE, device=device))


def test_one_wrong_image_in_a_batch(device):
    sift = SIFT(device=device)
    with pytest.raises(ValueError, match=r"2-D.*\(5,\)"):
        sift.compute_batch([IMAGE, np.zeros(5)])
    assert len(sift.compute_batch([IMAGE])[0]) > 0


def test_one_image_where_a_batch_was_asked_for(device):
    """An image given as the batch is a mistake: its rows are 1-D."""
    with pytest.raises(ValueError, match="2-D"):
        SIFT(device=device).compute_batch(IMAGE)


def test_extract_without_keypoints(device):
    with pytest.raises((RuntimeError, ValueError), match="detect"):
        SIFT(device=device).extract(IMAGE)


def test_failure_keeps_no_half_result(device):
    """After an image without features, attributes are of one image, not of two."""
    sift = extracted(IMAGE, device=device)
    with pytest.raises(RuntimeError):
        sift.detect(np.ones((64, 64)))
    lengths = {len(getattr(sift, name)) for name in COLUMNS if getattr(sift, name) is not None}
    assert len(lengths) <= 1


BAD_PARAMETERS = [
    ({"upsampling": 3}, ValueError, "upsampling must be 1, 2 or 4.*3"),
    ({"upsampling": "2"}, (TypeError, ValueError), "upsampling.*'2'"),
    ({"n_octaves": 0}, ValueError, "n_octaves.*0"),
    ({"n_octaves": -1}, ValueError, "n_octaves.*-1"),
    ({"n_octaves": 2.5}, (TypeError, ValueError), r"n_octaves.*2\.5"),
    ({"n_scales": 0}, ValueError, "n_scales.*0"),
    ({"n_scales": 10**6}, ValueError, "n_scales.*1000000"),
    ({"n_scales": None}, (TypeError, ValueError), "n_scales.*None"),
    ({"sigma_min": -1.6}, ValueError, r"sigma_min.*-1\.6"),
    ({"sigma_min": np.nan}, ValueError, "sigma_min.*nan"),
    ({"sigma_min": 1e300}, ValueError, r"sigma_min must be at most 10000, got 1e\+300"),
    ({"c_edge": 1e300}, ValueError, r"c_edge must be at most 1e\+30, got 1e\+300"),
    ({"sigma_min": np.inf}, ValueError, "sigma_min.*inf"),
    ({"sigma_min": "1.6"}, (TypeError, ValueError), r"sigma_min.*'1\.6'"),
    ({"sigma_in": -0.5}, ValueError, r"sigma_in.*-0\.5"),
    ({"sigma_in": np.nan}, ValueError, "sigma_in.*nan"),
    ({"c_dog": -0.1}, ValueError, r"c_dog.*-0\.1"),
    ({"c_dog": np.nan}, ValueError, "c_dog.*nan"),
    ({"c_edge": 0}, ValueError, "c_edge.*0"),
    ({"c_edge": np.nan}, ValueError, "c_edge.*nan"),
    ({"n_bins": 0}, ValueError, "n_bins.*0"),
    ({"n_bins": 36.5}, (TypeError, ValueError), r"n_bins.*36\.5"),
    ({"lambda_ori": 0}, ValueError, "lambda_ori.*0"),
    ({"lambda_ori": np.inf}, ValueError, "lambda_ori.*inf"),
    ({"c_max": np.nan}, ValueError, "c_max.*nan"),
    ({"lambda_descr": -6}, ValueError, "lambda_descr.*-6"),
    ({"n_hist": 0}, ValueError, "n_hist.*0"),
    ({"n_hist": 10**6}, ValueError, "n_hist.*1000000"),
    ({"n_ori": 0}, ValueError, "n_ori.*0"),
    ({"n_ori": 10**6}, ValueError, "n_ori.*1000000"),
    ({"dtype": "float16"}, (TypeError, ValueError), "float32.*float64.*float16"),
    ({"dtype": int}, (TypeError, ValueError), "float32.*float64.*int"),
    ({"blur": "fast"}, ValueError, "blur.*ndimage.*kernel.*fast|blur.*kernel.*ndimage.*fast"),
    ({"num_threads": 0}, ValueError, "num_threads.*0"),
    ({"num_threads": -1}, ValueError, "num_threads.*-1"),
    ({"max_keypoints": 0}, ValueError, "max_keypoints.*0"),
    ({"max_keypoints": 2.5}, TypeError, r"max_keypoints.*2\.5"),
    ({"max_keypoints": True}, TypeError, "max_keypoints.*True"),
    ({"keep": "best"}, ValueError, "keep must be one of 'response', 'scale', 'grid', got 'best'"),
    ({"upright": 1}, TypeError, "upright must be True or False, got 1"),
    ({"affine_shape": 1}, TypeError, "affine_shape must be True or False, got 1"),
    ({"affine_shape": True, "upright": True}, ValueError, "upright must be False with affine_shape.*got True"),
    ({"precise_upscale": "yes"}, TypeError, "precise_upscale.*'yes'"),
    ({"normalization": "l1"}, ValueError, "normalization must be one of 'l2', 'root', got 'l1'"),
    ({"descriptor_layout": None}, ValueError, "descriptor_layout.*'ubc'.*None"),
    ({"pooling": 0.5}, TypeError, r"pooling must be several numbers or None, got 0\.5"),
    ({"pooling": "0.5"}, TypeError, r"pooling must be several numbers or None, got '0\.5'"),
    ({"pooling": ()}, ValueError, "pooling must be 1 to 32 numbers, or None, got 0"),
    ({"pooling": [1] * 33}, ValueError, "pooling must be 1 to 32 numbers, or None, got 33"),
    ({"pooling": (1, "2")}, TypeError, "a factor of pooling must be a number, got '2'"),
    ({"pooling": (1, True)}, TypeError, "a factor of pooling must be a number, got True"),
    ({"pooling": (1, np.nan)}, ValueError, "a factor of pooling must be finite, got nan"),
    ({"pooling": (1, 0)}, ValueError, r"the factors of pooling must be between 0\.0625 and 16, got 0"),
    ({"pooling": (-1, 1)}, ValueError, r"the factors of pooling must be between 0\.0625 and 16, got -1"),
    ({"pooling": (1, 17)}, ValueError, r"the factors of pooling must be between 0\.0625 and 16, got 17"),
    ({"pooling": (1, 2), "n_ori": 43}, ValueError, "the descriptor's histograms must fit 48640 bytes.*n_ori=43"),
    ({"device": "tpu"}, ValueError, "cpu.*tpu"),
    ({"device": "cuda:x"}, ValueError, "cuda:x"),
    ({"device": None}, (TypeError, ValueError), "device.*None"),
]


@pytest.mark.parametrize(("parameters", "error", "message"), BAD_PARAMETERS, ids=[str(p) for p, *_ in BAD_PARAMETERS])
def test_wrong_parameters(parameters, error, message):
    """Found when the object is made; the message names the parameter and the value."""
    with pytest.raises(error, match=message):
        SIFT(**({"device": "cpu"} | parameters))


@pytest.mark.parametrize(("upsampling", "largest"), [(4, "0.4"), (2, "0.8"), (1, "1.6")])
def test_blur_of_the_input_above_sigma_min(upsampling, largest):
    """scikit-image dies of a math domain error here, even with all other defaults."""
    for sigma_in in (0.5, 0.9, 2.0):
        if sigma_in > float(largest):
            message = f"sigma_in must be at most .*{largest}.*got {sigma_in:g}"
            with pytest.raises(ValueError, match=message):
                SIFT(upsampling=upsampling, sigma_in=sigma_in)
    # the largest value itself works
    assert len(SIFT(upsampling=upsampling, sigma_in=float(largest), device="cpu").compute(IMAGE))


def test_cuda_without_a_gpu():
    """An error that says what is missing and how to get it; never a silent run on the CPU."""
    error = cuda_info().get("error")
    if not error:
        pytest.skip("this machine has a GPU")
    with pytest.raises(RuntimeError) as caught:
        SIFT(device="cuda")
    assert error in str(caught.value)
    message = str(caught.value).lower()
    assert "cupy" in message or "driver" in message
    assert "install" in message


def test_a_device_that_is_not_there():
    with pytest.raises((RuntimeError, ValueError), match="cuda"):
        SIFT(device="cuda:99")


def test_auto_takes_what_is_there():
    name = SIFT(device="auto").device.name
    assert name == "cpu" if cuda_info().get("error") else name.startswith("cuda")


# Tensors


class Tensor:
    """What a tensor of PyTorch shows of itself, on the CPU."""

    def __init__(self, array, dtype="torch.uint8", requires_grad=False):
        self.array, self.dtype, self.requires_grad, self.shape = array, dtype, requires_grad, array.shape

    def __getitem__(self, index):
        return Tensor(self.array[index], self.dtype, self.requires_grad)

    def __len__(self):
        return len(self.array)

    def __array__(self, dtype=None, copy=None):
        if self.requires_grad:
            raise RuntimeError("Can't call numpy() on Tensor that requires grad. Use tensor.detach().numpy() instead.")
        if self.dtype == "torch.bfloat16":
            raise TypeError("Got unsupported ScalarType BFloat16")
        return self.array


@pytest.mark.parametrize("method", ["compute", "detect_and_extract"])
def test_a_tensor_that_requires_a_gradient(method):
    with pytest.raises(ValueError, match=r"requires_grad=True; pass image\.detach\(\)"):
        getattr(SIFT(device="cpu"), method)(Tensor(IMAGE, requires_grad=True))


def test_a_tensor_of_bfloat16():
    sift = SIFT(device="cpu")
    with pytest.raises(TypeError, match=r"got a tensor of torch\.bfloat16; pass image\.float\(\)"):
        sift.compute(Tensor(IMAGE, "torch.bfloat16"))
    with pytest.raises(TypeError, match=r"^image 1 of the batch: .*bfloat16"):
        sift.compute_batch([IMAGE, Tensor(IMAGE, "torch.bfloat16")])


@pytest.mark.parametrize("make", [np.array, Tensor])
@pytest.mark.parametrize("channel", [False, True])
def test_a_tensor_of_images_is_a_batch(device, make, channel):
    stack = np.stack([IMAGE, IMAGE[::-1], IMAGE[:, ::-1]])
    images = make(stack[:, None] if channel else stack)
    sift = SIFT(device=device)
    expected = [digest(sift.compute(image)) for image in stack]
    assert [digest(features) for features in sift.compute_batch(images)] == expected
    assert [digest(features) for features in sift.map(images)] == expected


def test_colour_images_are_refused_in_a_batch_too():
    for shape in ((2, 3, 40, 40), (2, 40, 40, 3)):
        with pytest.raises(ValueError, match="image 0 of the batch: image must be 2-D"):
            SIFT(device="cpu").compute_batch(np.zeros(shape, np.uint8))
