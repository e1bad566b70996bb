"""Templates are aligned as the NumPy twin aligns them, and find an affine map that is known."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import skimage.data
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import affine_transform, spline_filter

from gpusift.devices import CpuDevice, get_device
from gpusift.matching import alignment
from gpusift.parameters import Parameters
from gpusift.stages import scale_space
from tests.support import alignment as twin

PARAMETERS = Parameters()
KEPT = Path(twin.__file__).with_name("hashes.json")
CENTRE = np.array([60.0, 70.0])
BIAS = 0.25  # of positions, by upsampling
PHOTOGRAPH = skimage.data.camera()[60:180, 150:290] / 255.0


def aligned(device_name, image_a, image_b, first, second, dtype="float64"):
    """The alignment of features of two images, on the host, and their scale spaces."""
    device = get_device(device_name, dtype)
    with device.active():
        spaces = [scale_space.build(device, device.asarray(image), PARAMETERS) for image in (image_a, image_b)]
        features = [twin.on_device(device, each) for each in (first, second)]
        templates = alignment.sample(device, spaces[0], features[0], PARAMETERS)
        found = alignment.align(device, spaces[1], templates, features[1], PARAMETERS)
        arrays = (found.positions, found.maps, found.correlations, found.aligned)
        levels = [device.to_host(space.level(0, 1).image) for space in spaces]
        return alignment.Alignment(*(device.to_host(array) for array in arrays)), levels


def warped(matrix, shift):
    """The photograph, of which a point p around the centre is at matrix p + shift."""
    inverse = np.linalg.inv(matrix)
    offset = CENTRE - inverse @ (CENTRE + shift)
    return affine_transform(spline_filter(PHOTOGRAPH), inverse, offset, prefilter=False, mode="nearest")


def one(row=CENTRE[0], col=CENTRE[1], sigma=2.5, orientation=0.0, dtype=np.float64):
    """One keypoint, which is compared at level 1 of the first octave: that has half its blur."""
    return twin.keypoints([row], [col], [sigma], [orientation], [1], dtype)


@pytest.mark.parametrize("near", [(60, 70), (6, 70), (60, 133), (113, 70), (60, 6)], ids=str)
def test_alignment_is_the_twins(device, near):
    """In the middle, and near each side, where samples beyond it have no weight."""
    matrix, shift = np.array([[1.05, 0.04], [-0.06, 0.98]]), np.array([0.6, -0.4])
    row, col = CENTRE + matrix @ (near - CENTRE) + shift
    first, second = one(*near, orientation=0.3), one(row - 0.2, col + 0.2, 2.6, 0.35)
    found, levels = aligned(device, PHOTOGRAPH, warped(matrix, shift), first, second)
    delta = PARAMETERS.delta_min
    samples = [np.array([*f.positions[0] / delta, f.sigmas[0] / delta, f.orientations[0]]) for f in (first, second)]
    position, matrix, correlation = twin.align(*levels, *samples)
    assert found.aligned[0]
    np.testing.assert_allclose(found.positions[0], position * delta, rtol=0, atol=1e-9)
    np.testing.assert_allclose(found.maps[0], matrix * delta / first.sigmas[0], rtol=0, atol=1e-9)
    np.testing.assert_allclose(found.correlations[0], correlation, rtol=0, atol=1e-9)


def test_alignment_from_affine_shapes_is_the_twins(device):
    """It begins with the map between the two regions."""
    matrix, shift = np.array([[1.5, 0.1], [-0.1, 0.9]]), np.array([0.6, -0.4])
    shapes = [np.array([[1.1, 0.05], [0.05, 1.02]]), np.array([[1.7, 0.1], [0.1, 1.05]])]
    first, second = one(orientation=0.3), one(*(CENTRE + shift + 0.2), 2.4, 0.35)
    shaped = [replace(each, affine_shapes=shape[None]) for each, shape in zip((first, second), shapes, strict=True)]
    found, levels = aligned(device, PHOTOGRAPH, warped(matrix, shift), *shaped)
    delta = PARAMETERS.delta_min
    samples = [np.array([*f.positions[0] / delta, f.sigmas[0] / delta, f.orientations[0]]) for f in (first, second)]
    position, expected, _ = twin.align(*levels, *samples, shapes)
    assert found.aligned[0]
    np.testing.assert_allclose(found.positions[0], position * delta, rtol=0, atol=1e-9)
    np.testing.assert_allclose(found.maps[0], expected * delta / first.sigmas[0], rtol=0, atol=1e-9)


@pytest.mark.parametrize(("origin", "place"), [((50, 0), (6, 70)), ((0, 60), (60, 5)), ((50, 60), (9, 9))], ids=str)
@pytest.mark.parametrize("cut", ["a", "b"])
def test_what_lies_beyond_the_border_does_not_matter(device, cut, origin, place):
    """An image that is cut near the keypoint gives the position that the whole one does."""
    row, col = origin
    part = PHOTOGRAPH[row:, col:].copy()
    inner, outer = one(*place), one(*np.add(place, origin))
    images, features = [part, PHOTOGRAPH], [inner, outer.shifted(0.3)]
    if cut == "b":
        images, features = [PHOTOGRAPH, part], [outer, inner.shifted(0.3)]
    found, _ = aligned(device, *images, *features)
    assert found.aligned[0]
    expected = features[1].positions - 0.3
    np.testing.assert_allclose(found.positions, expected, rtol=0, atol=0.02)


@settings(max_examples=25)
@given(
    st.tuples(*(st.floats(-0.12, 0.12) for _ in range(4))),
    st.tuples(*(st.floats(-0.8, 0.8) for _ in range(2))),
    st.floats(-np.pi, np.pi),
)
def test_a_known_affine_map_is_found(shear, shift, turn):
    turned = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    matrix = turned @ (np.eye(2) + np.array(shear).reshape(2, 2))
    # the orientation of the second keypoint is 0.1 radians off
    first, second = one().shifted(BIAS), one(orientation=turn + 0.1).shifted(BIAS)
    found, _ = aligned("cpu", PHOTOGRAPH, warped(matrix, shift), first, second, "float32")
    assert found.aligned[0]
    assert found.correlations[0] > 0.99
    np.testing.assert_allclose(
        found.positions[0], CENTRE + shift + BIAS, rtol=0, atol=0.06
    )  # 0.04 was the largest error seen
    np.testing.assert_allclose(found.maps[0], matrix, rtol=0, atol=0.01)


def test_brightness_and_contrast_do_not_matter(device):
    image = warped(np.eye(2), np.array([0.5, 0.25]))
    found, _ = aligned(device, PHOTOGRAPH, image, one(), one())
    changed, _ = aligned(device, PHOTOGRAPH, 0.25 * image + 0.5, one(), one())
    np.testing.assert_allclose(changed.positions, found.positions, rtol=0, atol=1e-9)
    np.testing.assert_allclose(changed.correlations, found.correlations, rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("image_a", "image_b", "first", "second"),
    [
        (PHOTOGRAPH, PHOTOGRAPH, one(2, 2), one()),  # most of the patch beyond the border of the first image
        (PHOTOGRAPH, PHOTOGRAPH, one(), one(118, 138)),  # and of the second
        (np.full_like(PHOTOGRAPH, 0.5), PHOTOGRAPH, one(), one()),
        (PHOTOGRAPH, np.full_like(PHOTOGRAPH, 0.5), one(), one()),
        (np.tile(np.linspace(0, 1, 140), (120, 1)), PHOTOGRAPH, one(), one()),  # a ramp fixes no position
        (PHOTOGRAPH, PHOTOGRAPH[::-1].copy(), one(), one()),  # another scene
        (PHOTOGRAPH, warped(np.eye(2), np.array([9.0, 0])), one(), one()),  # too far away
    ],
    ids=["border a", "border b", "flat a", "flat b", "ramp", "another scene", "far"],
)
def test_what_cannot_be_aligned_is_left_alone(device, image_a, image_b, first, second):
    found, _ = aligned(device, image_a, image_b, first, second)
    assert not found.aligned[0]
    assert found.correlations[0] == 0
    np.testing.assert_array_equal(found.positions, second.positions)
    np.testing.assert_allclose(found.maps[0], np.eye(2), rtol=0, atol=1e-12)


def test_no_keypoints(device):
    found, _ = aligned(device, PHOTOGRAPH, PHOTOGRAPH, one()[:0], one()[:0])
    assert found.positions.shape == (0, 2)
    assert found.maps.shape == (0, 2, 2)
    assert len(found.correlations) == len(found.aligned) == 0


@pytest.mark.parametrize("upsampling", [1, 2])
def test_levels_are_an_octave_finer_or_the_finest(upsampling):
    features = twin.keypoints([1, 2, 3, 4], [1, 2, 3, 4], [1, 1, 1, 1], [0, 0, 0, 0], [1, 3, 1, 3], np.float32)
    features.octaves[:] = [0, 0, 2, 1]
    octaves, scales = alignment._finer_levels(np, features, Parameters(upsampling=upsampling))
    assert list(zip(octaves, scales, strict=True)) == [(0, 0), (0, 0), (1, 1), (0, 3)]


def test_kept_hash(device):
    assert twin.digest(get_device(device)) == json.loads(KEPT.read_text())["alignment"]


@pytest.mark.parametrize("num_threads", [1, 3])
def test_the_same_bytes_from_any_number_of_threads(num_threads):
    assert twin.digest(CpuDevice(num_threads=num_threads)) == json.loads(KEPT.read_text())["alignment"]
