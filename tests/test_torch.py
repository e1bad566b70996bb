"""PyTorch: shared memory, tensors as images, and LightGlue's input, compared with OpenCV."""

from __future__ import annotations

import sys

import cv2
import numpy as np
import pytest
import skimage.data

import gpusift.torch
from gpusift import SIFT, Features
from gpusift.features import ARRAYS

IMAGE = skimage.data.camera()[100:300, 150:400]
NAMES = list(ARRAYS)


@pytest.fixture
def torch(request):
    module = pytest.importorskip("torch", reason="PyTorch is not installed: pip install torch")
    if request.config.getoption("--cuda-standin") is not None:
        pytest.skip("PyTorch does not know the stand-in for CuPy")
    return module


def address(array) -> int:
    return array.ctypes.data if isinstance(array, np.ndarray) else array.data.ptr


def assert_same(a: Features, b: Features) -> None:
    for name in NAMES:
        np.testing.assert_array_equal(getattr(a.to_host(), name), getattr(b.to_host(), name), err_msg=name)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_both_ways_are_the_same_memory(torch, device, dtype):
    features = SIFT(device=device, dtype=dtype, affine_shape=True).compute(IMAGE)
    tensors = gpusift.torch.tensors(features)
    assert list(tensors) == NAMES
    again = gpusift.torch.features(tensors)
    for name in NAMES:
        array, tensor = getattr(features, name), tensors[name]
        assert tensor.device.type == device
        assert tensor.shape == array.shape
        assert tensor.dtype == getattr(torch, str(array.dtype))
        assert tensor.data_ptr() == address(array) == address(getattr(again, name))
        assert type(getattr(again, name)) is type(array)
    assert_same(again, features)
    tensors["descriptors"][3, 5] = 77
    tensors["positions"][2] = 1.5
    assert int(features.descriptors[3, 5]) == int(again.descriptors[3, 5]) == 77
    assert (features.positions[2] == 1.5).all()
    again.scales[0] = 9
    assert int(tensors["scales"][0]) == int(features.scales[0]) == 9


def test_parts_of_features(torch, device):
    features = SIFT(device=device).compute(IMAGE)
    for part in (features[10:20], features[::3], features[:0], features[4], features.with_descriptors(None)):
        tensors = gpusift.torch.tensors(part)
        assert ("descriptors" in tensors) == (part.descriptors is not None)
        assert tensors["positions"].data_ptr() == address(part.positions) or len(part) == 0
        again = gpusift.torch.features(tensors)
        assert len(again) == len(part)
        np.testing.assert_array_equal(again.to_host().sigmas, part.to_host().sigmas)


def test_tensors_from_the_user(torch, device):
    features = SIFT(device=device).compute(IMAGE)
    tensors = {name: tensor.clone() for name, tensor in gpusift.torch.tensors(features).items()}
    tensors["sigmas"].requires_grad_()
    assert_same(gpusift.torch.features({**tensors, "more": None}), features)


def test_unfit_tensors_are_refused(torch):
    tensors = gpusift.torch.tensors(SIFT(device="cpu", affine_shape=True).compute(IMAGE))
    with pytest.raises(ValueError, match=r"must have all of positions, .* octaves are missing"):
        gpusift.torch.features({name: tensors[name] for name in NAMES if name != "octaves"})
    with pytest.raises(ValueError, match=r"of one length, on one device, got .*'sigmas': \(3, 'cpu'\)"):
        gpusift.torch.features({**tensors, "sigmas": tensors["sigmas"][:3]})


@pytest.mark.parametrize("dtype", ["uint8", "float32", "float64"])
def test_a_tensor_is_an_image(torch, device, dtype):
    image = IMAGE if dtype == "uint8" else (IMAGE / 255).astype(dtype)
    tensor = torch.from_numpy(image).to(device)
    sift = SIFT(device=device)
    expected = sift.compute(image)
    assert_same(sift.compute(tensor), expected)
    assert_same(sift.compute(tensor.T.contiguous().T), expected)
    sift.detect_and_extract(tensor)
    assert type(sift.descriptors) is type(expected.descriptors)
    assert (sift.descriptors == expected.descriptors).all()


def test_the_lightglue_dictionary(torch, device):
    features = SIFT(device=device, descriptor_layout="ubc").compute(IMAGE)
    data = gpusift.torch.lightglue(features, IMAGE.shape)
    n = len(features)
    shapes = {"keypoints": (1, n, 2), "scales": (1, n), "oris": (1, n), "descriptors": (1, n, 128)}
    shapes |= {"keypoint_scores": (1, n), "image_size": (1, 2)}
    assert {name: tuple(tensor.shape) for name, tensor in data.items()} == shapes
    assert {tensor.dtype for tensor in data.values()} == {torch.float32}
    assert {tensor.device.type for tensor in data.values()} == {device}
    host = features.to_host()
    arrays = {name: tensor[0].cpu().numpy() for name, tensor in data.items()}
    np.testing.assert_array_equal(arrays["image_size"], [250, 200])
    np.testing.assert_array_equal(arrays["keypoints"], host.unbiased().positions[:, ::-1])
    np.testing.assert_array_equal(arrays["keypoint_scores"], np.abs(host.responses) * host.sigmas)
    np.testing.assert_allclose(np.linalg.norm(arrays["descriptors"], axis=1), 1, rtol=1e-6)
    assert 0 <= arrays["oris"].min() <= arrays["oris"].max() < 2 * np.pi


def test_lightglue_gets_what_its_own_extractor_gives(torch, device):
    """github.com/cvg/LightGlue, lightglue/sift.py: cv2.SIFT's pt, size, deg2rad(angle) and RootSIFT descriptors."""
    features = SIFT(device=device, descriptor_layout="ubc").compute(IMAGE)
    data = gpusift.torch.lightglue(features, IMAGE.shape)
    ours = {name: tensor[0].cpu().numpy() for name, tensor in data.items()}
    keypoints, descriptors = cv2.SIFT_create().detectAndCompute(IMAGE, None)

    def table(x_y: np.ndarray, scales: np.ndarray, oris: np.ndarray) -> np.ndarray:
        """Rows such that a distance of 1 is a pixel, 7 % in scale or 6 degrees."""
        return np.column_stack([x_y, 10 * np.log2(scales), 10 * np.cos(oris), 10 * np.sin(oris)])

    mine = table(ours["keypoints"], ours["scales"], ours["oris"])
    theirs = table(
        np.array([k.pt for k in keypoints]),
        np.array([k.size / 2 for k in keypoints]),
        np.deg2rad([k.angle for k in keypoints]),
    )
    distances = np.linalg.norm(mine[:, None] - theirs, axis=2)
    near = distances.min(axis=1) < 1
    assert near.mean() > 0.6
    roots = np.sqrt(descriptors / descriptors.sum(axis=1, keepdims=True))[distances.argmin(axis=1)]
    cosines = (ours["descriptors"] * roots).sum(axis=1)[near]
    assert np.median(cosines) > 0.97


def test_root_descriptors_are_not_rooted_again(torch, device):
    data = [
        gpusift.torch.lightglue(
            SIFT(device=device, normalization=n, descriptor_layout="ubc").compute(IMAGE), IMAGE.shape
        )
        for n in ("l2", "root")
    ]
    assert (data[0]["descriptors"] * data[1]["descriptors"]).sum(dim=2).min() > 0.99


def test_lightglue_of_no_features(torch):
    empty = SIFT.lightglue(device="cpu").compute(np.zeros((50, 60)))
    data = gpusift.torch.lightglue(empty, (50, 60))
    assert data["keypoints"].shape == (1, 0, 2)
    assert data["descriptors"].shape == (1, 0, 128)


def test_lightglue_wants_descriptors(torch):
    features = SIFT.lightglue(device="cpu").compute(IMAGE)
    with pytest.raises(ValueError, match="features must have descriptors, got None"):
        gpusift.torch.lightglue(features.with_descriptors(None), IMAGE.shape)
    with pytest.raises(ValueError, match="normalization must be one of 'l2', 'root', got 'l1'"):
        gpusift.torch.lightglue(features, IMAGE.shape, normalization="l1")


def test_lightglue_itself_takes_it(torch):
    lightglue = pytest.importorskip(
        "lightglue", reason="LightGlue is not installed: pip install git+https://github.com/cvg/LightGlue"
    )
    torch.manual_seed(0)
    network = lightglue.LightGlue(features=None, input_dim=128, add_scale_ori=True, weights=None).eval()
    sift = SIFT.lightglue(device="cpu", max_keypoints=60)
    data = [gpusift.torch.lightglue(sift.compute(image), image.shape) for image in (IMAGE, IMAGE[:150])]
    with torch.no_grad():
        result = network({"image0": data[0], "image1": data[1]})
    assert result["matches0"].shape == (1, data[0]["keypoints"].shape[1])


def test_without_torch_it_says_how_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    features = SIFT(device="cpu").compute(IMAGE)
    for call in (gpusift.torch.tensors, lambda f: gpusift.torch.lightglue(f, IMAGE.shape)):
        with pytest.raises(ImportError, match="PyTorch must be installed, but it is not: pip install torch"):
            call(features)
