"""End to end: the conformance table holds against scikit-image in float64.

Each test pairs the keypoints of both sides and checks every row of the table (tests/support/oracle.py).
"""

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from skimage.util import img_as_float
from skimage.util.dtype import _convert

from gpusift import SIFT
from gpusift.stages import extrema
from tests.support import oracle, ties
from tests.support.oracle import Keypoints, compare

PRECISIONS = [
    ("float64", "ndimage"),
    ("float64", "kernel"),
    ("float32", "ndimage"),
    ("float32", "kernel"),
]
in_each_precision = pytest.mark.parametrize(("dtype", "blur"), PRECISIONS)


def check(image, device, dtype, blur, kind="bytes", **parameters):
    """Assert the table for an image of a kind; if the oracle finds no keypoints, assert that we find none."""
    sift = SIFT(**parameters, device=device, dtype=dtype, blur=blur)
    found = oracle.run(image, **parameters)
    try:
        theirs = found.described
    except RuntimeError:
        with pytest.raises(RuntimeError, match="no features"):
            sift.detect_and_extract(image)
        return 0
    sift.detect_and_extract(image)
    agreement = compare(Keypoints.of(sift), theirs, sift.upsampling)
    agreement.check(dtype, found, kind)
    assert_array_equal(sift.keypoints, sift.positions.round().astype(int))
    assert sift.n_octaves == found.sift.n_octaves
    np.testing.assert_allclose(sift.scalespace_sigmas, found.sift.scalespace_sigmas, rtol=1e-6)
    np.testing.assert_allclose(sift.deltas, found.sift.deltas, rtol=1e-6)
    return len(agreement.pairs)


@in_each_precision
@pytest.mark.parametrize("name", oracle.PHOTOGRAPHS)
def test_photographs(device, name, dtype, blur):
    assert check(oracle.photograph(name), device, dtype, blur) > 0


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", ties.GREYS)
def test_unrounded_greys(device, name, dtype):
    assert check(ties.grey(name), device, dtype, "kernel", "greys") > 200


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", ties.PATTERNS)
def test_regular_patterns(device, name, dtype):
    """Where neighbours tie exactly, float64 breaks no tie, as its operations are SciPy's, and on a CPU also C's."""
    kind = "patterns" if device == "cpu" else "patterns on a GPU"
    with ties.atan2_of_c():
        assert check(ties.pattern(name), device, dtype, "kernel", kind) >= 6


@in_each_precision
@pytest.mark.parametrize(
    "parameters",
    [
        {"upsampling": 1},
        {"upsampling": 4, "sigma_in": 0.3},
        {"upsampling": 4, "sigma_in": 0.4},
        {"sigma_in": 0},
        {"upsampling": 1, "sigma_in": 1.0, "sigma_min": 2.0},
        {"n_octaves": 1},
        {"n_octaves": 2},
        {"n_octaves": 3},
        {"n_scales": 1},
        {"n_scales": 2},
        {"n_scales": 4},
        {"n_scales": 5},
        {"n_scales": 6},
        {"n_hist": 2, "n_ori": 4},
        {"n_hist": 3, "n_ori": 12},
        {"n_hist": 5, "n_ori": 5},
        {"n_hist": 6, "n_ori": 7},
        {"n_hist": 1, "n_ori": 1},
        {"n_ori": 9, "lambda_descr": 3},
        {"lambda_descr": 9.5},
        {"n_bins": 6},
        {"n_bins": 8},
        {"n_bins": 17},
        {"n_bins": 72},
        {"lambda_ori": 0.75, "n_bins": 18},
        {"lambda_ori": 3},
        {"c_max": 0.5},
        {"c_max": 1.0},
        {"c_dog": 0.004},
        {"c_dog": 0.03},
        {"c_edge": 2},
        {"c_edge": 50},
        {"sigma_min": 1.1},
        {"sigma_min": 2.5, "sigma_in": 0.9},
    ],
    ids=lambda parameters: "-".join(f"{name}={value}" for name, value in parameters.items()),
)
def test_parameters(device, parameters, dtype, blur):
    image = oracle.photograph("astronaut")[20:200, 140:340]
    assert check(image, device, dtype, blur, **parameters) > 20


@in_each_precision
@pytest.mark.parametrize(
    "shape",
    [(12, 12), (13, 200), (200, 13), (6, 300), (300, 7), (31, 17), (101, 67), (97, 211), (64, 96)],
    ids=lambda shape: "{}x{}".format(*shape),
)
def test_shapes(device, shape, dtype, blur):
    rows, cols = shape
    image = oracle.photograph("gravel")[20 : 20 + rows, 30 : 30 + cols]
    n = check(image, device, dtype, blur, c_dog=0.005)
    assert n > 0 or min(shape) < 14


@in_each_precision
@pytest.mark.parametrize("image_dtype", ["uint8", "uint16", "int16", "float32", "float64", "int64"])
def test_image_dtypes(device, image_dtype, dtype, blur):
    image = _convert(oracle.photograph("coins")[:150, :200], image_dtype)
    assert check(image, device, dtype, blur) > 100


@in_each_precision
@pytest.mark.parametrize("image_dtype", ["int8", "uint32", "int32", "uint64", "float16"])
def test_further_image_dtypes(device, image_dtype, dtype, blur):
    image = oracle.photograph("coins")[:100, :120]
    image = (image // 2).astype(np.int8) if image_dtype == "int8" else _convert(image, image_dtype)
    assert check(image, device, dtype, blur) > 20


@in_each_precision
def test_bits(device, dtype, blur):
    """Two intensities; the pattern is irregular, as extrema of a regular one tie exactly."""
    image = oracle.photograph("gravel")[:120, :160] > 120
    assert image.dtype == bool
    assert check(image, device, dtype, blur) > 100


@in_each_precision
@pytest.mark.parametrize(("scale", "shift"), [(255, 0), (2, -1), (1000, 5000), (-1, 0)])
def test_ranges_of_floats(device, scale, shift, dtype, blur):
    """Float images are not rescaled, whatever their range."""
    if shift == 5000 and dtype == "float32":
        pytest.skip("the levels' last bits are lost: float32 rounds relative to shift")
    image = img_as_float(oracle.photograph("coins")[:120, :160]) * scale + shift
    assert check(image, device, dtype, blur, c_dog=0.04 / 3 * abs(scale)) > 50


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_memory_layouts(device, dtype):
    """A transposed and strided view of another array is an image of its own."""
    image = oracle.photograph("brick")
    view = image[300:0:-2, ::2].T
    sift = SIFT(device=device, dtype=dtype)
    sift.detect_and_extract(view)
    found = oracle.run(np.ascontiguousarray(view))
    compare(Keypoints.of(sift), found.described).check(dtype, found)
    big_endian = view.astype(">u2") * 257
    sift.detect_and_extract(big_endian)
    compare(Keypoints.of(sift), found.described).check(dtype, found)


def test_very_many_candidates(device):
    """More candidates than a list has room for at first: none is lost."""
    image = oracle.photograph("tissue")
    parameters = {"c_dog": 1e-4, "n_scales": 6, "c_edge": 100}
    found = oracle.run(image, **parameters)
    room = 4 * image.size // extrema.SAMPLES_PER_CANDIDATE + 1024
    assert len(found.extrema) > room
    assert check(image, device, "float64", "kernel", **parameters) > room


@in_each_precision
def test_detect_then_extract(device, dtype, blur):
    """The same bytes as both in one call."""
    image = oracle.photograph("chelsea")
    at_once = SIFT(device=device, dtype=dtype, blur=blur)
    at_once.detect_and_extract(image)
    in_turn = SIFT(device=device, dtype=dtype, blur=blur)
    in_turn.detect(image)
    assert in_turn.descriptors is None
    in_turn.extract(image)
    for name in (*Keypoints.__dataclass_fields__, "keypoints"):
        assert_array_equal(getattr(in_turn, name), getattr(at_once, name), err_msg=name)


@in_each_precision
@pytest.mark.parametrize("other", ["same shape", "larger"])
def test_extract_from_another_image(device, other, dtype, blur):
    """The present keypoints are described at their positions in the other image."""
    image = oracle.photograph("motorcycle")[200:320, 300:450]
    another = oracle.photograph("motorcycle")[190:310, 310:460]
    if other == "larger":
        another = oracle.photograph("motorcycle")[150:350, 280:500]
    sift = SIFT(device=device, dtype=dtype, blur=blur)
    sift.detect(image)
    before = sift.positions.copy()
    sift.extract(another)
    found = oracle.run(image)
    described = oracle.run(another).describe(found.oriented)
    compare(Keypoints.of(sift), described).check(dtype, found)
    assert_array_equal(sift.positions, before)
