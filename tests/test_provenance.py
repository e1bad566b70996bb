"""What features know of how they were computed, files keep it, and what does not fit is refused or converted."""

from __future__ import annotations

import copy
import pickle

import cv2
import h5py
import numpy as np
import pytest
from click.testing import CliRunner

from gpusift import SIFT, Features, hdf5, npz, parquet
from gpusift.cli import main
from gpusift.colmap import keypoint_rows
from gpusift.matching import match, match_pairs
from gpusift.provenance import Provenance
from gpusift.stream import extract
from tests.support.pictures import textured

IMAGE = textured(0)
PLAIN = Provenance("scikit-image", "l2", None, 2, 0.25)
COLMAP = Provenance("ubc", "root", None, 2, 0.0)


@pytest.fixture(scope="module")
def colmap() -> Features:
    return SIFT.colmap(device="cpu").compute(IMAGE)


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({}, PLAIN),
        ({"upsampling": 1}, Provenance("scikit-image", "l2", None, 1, 0.0)),
        ({"precise_upscale": True, "normalization": "root"}, Provenance("scikit-image", "root", None, 2, 0.0)),
        ({"upsampling_grid": "pixels", "descriptor_layout": "ubc"}, Provenance("ubc", "l2", None, 2, 0.0)),
        ({"pooling": (0.5, 1, 2)}, Provenance("scikit-image", "l2", (0.5, 1.0, 2.0), 2, 0.25)),
    ],
)
def test_every_way_to_features_says_how(device, parameters, expected):
    sift = SIFT(device=device, **parameters)
    features = sift.compute(IMAGE)
    several = [
        features,
        *sift.compute_batch([IMAGE, IMAGE.T.copy()]),
        *sift.map([IMAGE]),
        sift.compute(np.zeros((3, 3))),
    ]
    several.append(sift.describe(IMAGE, [[20, 20]], [2.0]))
    several += [features[:3], features.to_host(), Features.concatenate([features, features]), copy.deepcopy(features)]
    several.append(pickle.loads(pickle.dumps(features.to_host())))
    assert {each.provenance for each in several} == {expected}


def test_strips_say_it_too():
    whole = SIFT(device="cpu").compute(IMAGE)
    for limit in range(300_000, 3_000_000, 300_000):
        try:
            strips = SIFT(device="cpu", memory_limit=limit).compute(IMAGE)
        except MemoryError:
            continue
        assert strips.provenance == whole.provenance
        return
    pytest.fail("no limit is enough")


@pytest.mark.parametrize(
    "sift", [SIFT(device="cpu"), SIFT.colmap(device="cpu", pooling=(0.5, 1))], ids=["plain", "pooled"]
)
def test_files_keep_it(tmp_path, sift):
    features = sift.compute(IMAGE)
    features.save(tmp_path / "a.npz")
    npz.save(tmp_path / "b.npz", features, IMAGE.shape)
    assert (
        Features.load(tmp_path / "a.npz").provenance == npz.load(tmp_path / "b.npz").provenance == features.provenance
    )
    cv2.imwrite(str(tmp_path / "c.png"), IMAGE)
    extract(tmp_path / "c.png", tmp_path / "f.parquet", sift)
    extract(tmp_path / "c.png", tmp_path / "folder", sift)
    ((_, _, read),) = parquet.read(tmp_path / "f.parquet")
    assert read.provenance == npz.load(tmp_path / "folder" / "c.png.npz").provenance == features.provenance


def test_files_of_earlier_versions_do_not_say(tmp_path, colmap):
    np.savez(tmp_path / "old.npz", **colmap.arrays())
    assert Features.load(tmp_path / "old.npz").provenance is None
    np.savez(tmp_path / "other.npz", **colmap.arrays(), provenance=np.array("{}"))
    with pytest.raises(ValueError, match="provenance of features must be JSON"):
        Features.load(tmp_path / "other.npz")


def test_what_does_not_fit_is_not_matched(colmap):
    plain = SIFT(device="cpu").compute(IMAGE)
    with pytest.raises(ValueError, match="'scikit-image', 'l2' of features_a and 'ubc', 'root' of features_b"):
        match(plain, colmap)
    with pytest.raises(ValueError, match=r"of features\[0\] and .* of features\[1\]"):
        match_pairs([plain, colmap], [(0, 1)])
    with pytest.raises(ValueError, match="of one provenance"):
        Features.concatenate([plain, colmap])
    assert len(match(plain, colmap.with_provenance(None))) >= 0
    assert len(match(plain, SIFT(device="cpu", precise_upscale=True).compute(IMAGE))) > 0


def test_positions_lose_their_bias_where_readers_expect_none(colmap):
    """COLMAP, hloc and LightGlue read unbiased positions; a bias that is known is taken off, once."""
    biased = SIFT(device="cpu", descriptor_layout="ubc").compute(IMAGE)
    unbiased = SIFT(device="cpu", descriptor_layout="ubc", precise_upscale=True).compute(IMAGE)
    np.testing.assert_allclose(keypoint_rows(biased)[:, :2], keypoint_rows(unbiased)[:, :2], atol=1e-4)
    ours, theirs = (hdf5.hloc_arrays(each, IMAGE.shape)["keypoints"] for each in (biased, unbiased))
    np.testing.assert_allclose(ours, theirs, atol=1e-4)
    np.testing.assert_array_equal(biased.unbiased().unbiased().positions, biased.unbiased().positions)


def test_a_normalization_follows_from_the_features(colmap):
    known = hdf5.hloc_arrays(colmap, IMAGE.shape)
    np.testing.assert_array_equal(known["descriptors"], hdf5.hloc_arrays(colmap, IMAGE.shape, "root")["descriptors"])
    with pytest.raises(ValueError, match="normalization must be that of the features, 'root', or not given, got 'l2'"):
        hdf5.hloc_arrays(colmap, IMAGE.shape, "l2")


def test_lightglue_refuses_other_layouts(colmap):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install torch")
    import gpusift.torch

    with pytest.raises(ValueError, match="layout 'ubc' for LightGlue's network, got 'scikit-image'"):
        gpusift.torch.lightglue(SIFT(device="cpu").compute(IMAGE), IMAGE.shape)
    data = gpusift.torch.lightglue(colmap, IMAGE.shape)
    lengths = data["descriptors"].norm(dim=2)
    assert torch.allclose(lengths, torch.ones_like(lengths), atol=1e-5)
    rows = hdf5.hloc_arrays(colmap, IMAGE.shape)["descriptors"].T
    assert np.abs(data["descriptors"][0].numpy() - rows).max() < 2e-3


# hdf5.read, and matches of a file


@pytest.fixture
def features_file(tmp_path, monkeypatch):
    """A file of three images, one of them in a folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos/sub dir").mkdir(parents=True)
    for name, seed in (("a.png", 0), ("b.png", 0), ("sub dir/c.png", 2)):
        cv2.imwrite(f"photos/{name}", np.roll(textured(seed), len(name) % 2, axis=1))
    extract("photos", "f.h5", {"device": "cpu"})
    return tmp_path / "f.h5"


def test_read_gives_back_what_was_written(features_file):
    rows = list(hdf5.read(features_file))
    assert [name for name, _, _ in rows] == hdf5.names_in(features_file) == ["a.png", "b.png", "sub dir/c.png"]
    (name, shape, read), expected = rows[0], SIFT.colmap(device="cpu").compute(cv2.imread("photos/a.png", 0))
    assert (name, shape, read.provenance) == ("a.png", IMAGE.shape, COLMAP)
    np.testing.assert_allclose(read.positions, expected.positions, atol=1e-5)
    np.testing.assert_array_equal(read.sigmas, expected.sigmas)
    turned = np.angle(np.exp(1j * (read.orientations - expected.orientations).astype(float)))
    assert np.abs(turned).max() < 1e-5
    np.testing.assert_array_equal(read.responses, np.abs(expected.responses))
    assert np.abs(read.descriptors.astype(int) - expected.descriptors).max() <= 1
    ((only, _, _),) = hdf5.read(features_file, ["b.png"])
    assert only == "b.png"
    with pytest.raises(KeyError, match=r"no features of an image 'd\.png'"):
        list(hdf5.read(features_file, ["d.png"]))


def test_read_takes_what_hloc_wrote(tmp_path):
    """hloc's `sift` writes half floats and no attribute; other detectors have no scales, or negative descriptors."""
    with h5py.File(tmp_path / "f.h5", "w") as file:
        group = file.create_group("x/y.jpg")
        half = {"keypoints": np.ones((3, 2)), "scales": np.ones(3), "oris": np.full(3, 400), "scores": np.zeros(3)}
        for key, array in half.items():
            group[key] = array.astype(np.float16)
        group["descriptors"], group["image_size"] = np.full((128, 3), 128**-0.5, np.float16), np.array([60, 50])
    ((name, shape, features),) = hdf5.read(tmp_path / "f.h5")
    assert (name, shape, features.provenance, features.positions.dtype) == ("x/y.jpg", (50, 60), None, np.float32)
    assert (features.descriptors == 45).all()
    np.testing.assert_allclose(features.angles, 40, atol=1e-3)
    with h5py.File(tmp_path / "f.h5", "a") as file:
        file["x/y.jpg/descriptors"][5, 1] = -0.1
    with pytest.raises(ValueError, match="must have SIFT's descriptors, which are not negative"):
        list(hdf5.read(tmp_path / "f.h5"))
    with h5py.File(tmp_path / "f.h5", "a") as file:
        del file["x/y.jpg/scales"]
        file["linked"] = h5py.ExternalLink("other.h5", "/")
    with pytest.raises(ValueError, match="has no scales"):
        list(hdf5.read(tmp_path / "f.h5"))


def run(*arguments):
    return CliRunner().invoke(main, ["match", *map(str, arguments)])


def test_matches_of_a_file_on_the_command_line(features_file):
    (features_file.parent / "pairs.txt").write_text("a.png b.png\nb.png a.png\na.png sub dir/c.png\n")
    result = run("f.h5", "pairs.txt", "-o", "m.h5", "--device", "cpu", "--max-ratio", 0.9)
    assert result.exit_code == 0, result.output
    features = {name: each for name, _, each in hdf5.read(features_file)}
    total = 0
    with h5py.File("m.h5") as file:
        for pair in (("a.png", "b.png"), ("a.png", "sub dir/c.png")):
            a, b = (features[name] for name in pair)
            matches = match(a, b, max_ratio=0.9, device="cpu")
            for key, array in hdf5.hloc_matches(a, b, matches).items():
                np.testing.assert_array_equal(file[hdf5.pair_name(*pair)][key], array)
            total += len(matches)
        assert sum(len(group) for group in file.values()) == 2
    assert total > 20
    assert result.output == f"2 pairs, {total} matches -> m.h5\n"
    again = run("f.h5", "pairs.txt", "-o", "m.h5")
    assert again.exit_code == 1
    assert "m.h5 exists" in again.output
    assert run("f.h5", "pairs.txt", "-o", "m.h5", "--overwrite", "--device", "cpu").exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("f.h5", "pairs.txt", "-o", "m.png"), "the file of matches must be .h5 or .hdf5, got m.png"),
        (("f.h5", "pairs.txt", "-o", "f.h5"), "must be another than those that are read"),
        (("f.h5", "pairs.txt", "-o", "m.h5", "--refine"), "--refine is for photographs"),
        (("f.h5", "pairs.txt", "-o", "m.h5", "--profile", "opencv"), "--profile is for photographs"),
        (("f.h5", "wrong.txt", "-o", "m.h5"), "line 1: must be the names of two different images"),
        (("f.h5", "none.txt", "-o", "m.h5"), "none.txt"),
        (("none.h5", "pairs.txt", "-o", "m.h5"), "none.h5"),
        (("text.h5", "pairs.txt", "-o", "m.h5"), "text.h5"),
    ],
)
def test_matches_of_a_file_that_cannot_be(features_file, arguments, message):
    (features_file.parent / "pairs.txt").write_text("a.png b.png\n")
    (features_file.parent / "wrong.txt").write_text("a.png d.png\n")
    (features_file.parent / "text.h5").write_text("no HDF5")
    result = run(*arguments)
    assert result.exit_code in (1, 2)
    assert message in result.output
    assert not (features_file.parent / "m.h5").exists()
