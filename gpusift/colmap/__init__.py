"""COLMAP's face: a database of cameras, images, keypoints, descriptors and verified matches, ready for its mapper.

Everything is written through pycolmap. What COLMAP expects, and `Database.add` converts to:

- keypoints: (N, 4) float32: x (column), y (row), sigma, angle. The centre of the upper left pixel is at (0.5, 0.5);
  lengths are in pixels of the file as it is stored, for COLMAP does not turn pictures as EXIF says; the angle is in
  radians, from the x axis towards the y axis;
- descriptors: (N, 128) uint8: 512 times RootSIFT, in Lowe's order of bins, `SIFT(descriptor_layout="ubc")`;
- every image has its rows of both, even where there are none.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gpusift.colmap import pairs as image_pairs
from gpusift.colmap.cameras import import_images, import_pycolmap, reader_options
from gpusift.colmap.pairs import Pair
from gpusift.features import Features

if TYPE_CHECKING:
    from gpusift.sift import SIFT

# Parameters of SIFT that look for what COLMAP's own extractor does: its peak threshold; of too many, the largest. It
# keeps 8192 before orientations, and to the end of the scale that goes beyond them: nearly as many as 12288 here.
SIFT_PARAMETERS: dict[str, Any] = {
    "c_dog": 0.02 / 3,
    "max_keypoints": 12288,
    "keep": "scale",
    "normalization": "root",
    "precise_upscale": True,
    "descriptor_layout": "ubc",
}

# COLMAP's matcher: of Euclidean distances between descriptors of length 512.
MAX_RATIO = 0.8
MAX_DISTANCE = 0.7 * 512

DESCRIPTOR_BYTES = 128
PIXEL_CENTRE = 0.5  # of the upper left pixel, in both coordinates
BLOCK_IMAGES = 16  # the descriptors of twice as many images are held at once
VERIFIED_PAIRS = 64  # verified together; Ctrl-C waits for them
SEED = 0  # of the random samples that verification draws


def keypoint_rows(features: Features) -> np.ndarray:
    """Convert keypoints to COLMAP's conventions.

    Parameters
    ----------
    features : Features
        N features, on any device.

    Returns
    -------
    rows : (N, 4) float32 array
        x and y, pixels, the centre of the upper left one at (0.5, 0.5); sigma, pixels; angle, radians in [0, 2 pi),
        from the x axis towards the y axis.
    """
    host = features.to_host()
    positions = host.positions[:, ::-1].astype(np.float64) + PIXEL_CENTRE
    angles = np.deg2rad(host.angles.astype(np.float64))
    return np.column_stack((positions, host.sigmas, angles)).astype(np.float32)


class Database:
    """A COLMAP database that is filled step by step: images by `add`, then `match`, then `finish`.

    It grows as `<stem>.partial<suffix>` beside its final place, and takes that place when finished. An interrupted run
    leaves the partial file. Cameras are those of COLMAP's own import of the images: the focal length from EXIF, or 1.2
    times the longer side; images of one camera, by EXIF, share it; positions are from EXIF, too.

    Parameters
    ----------
    path : str or path-like
        The final file; its folder is made if it does not exist.
    folder : str or path-like
        The folder of all images.
    names : sequence of str
        The names of all images to come: their paths in that folder, with forward slashes.
    camera_model : str, optional
        "SIMPLE_PINHOLE", "PINHOLE", "SIMPLE_RADIAL", "RADIAL", "OPENCV" or another model of COLMAP's.
    camera_params : sequence of float, optional
        Its parameters, in COLMAP's order, for all cameras.
    single_camera : bool, optional
        All images are of one camera, and so of one size.
    overwrite : bool, optional
        Replace `path`, when finished, and an earlier partial file, now.

    Raises
    ------
    FileExistsError
        One of the two is there, and `overwrite` is not set.
    ImportError
        pycolmap is not installed.
    OSError
        The file cannot be written.
    ValueError
        The camera is not one of COLMAP's.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        folder: str | os.PathLike[str],
        names: Sequence[str],
        *,
        camera_model: str = "SIMPLE_RADIAL",
        camera_params: Sequence[float] | None = None,
        single_camera: bool = False,
        overwrite: bool = False,
    ) -> None:
        self._colmap = import_pycolmap()
        reader = reader_options(camera_model, camera_params)
        self.result = Path(path)
        self.partial = self.result.with_name(f"{self.result.stem}.partial{self.result.suffix}")
        for file in (self.result, self.partial):
            if file.exists() and not overwrite:
                raise FileExistsError(f"{file} exists; choose another name, or overwrite it")
        self.result.parent.mkdir(parents=True, exist_ok=True)
        _remove(self.partial)
        self.partial.touch()  # where it cannot be written, Python's OSError says why
        self._ids: dict[str, int] = {}
        try:
            self._imported = import_images(Path(folder), names, reader, single_camera)
            self._database = self._colmap.Database.open(self.partial)
        except BaseException:
            _remove(self.partial)
            raise

    def add(self, name: str, features: Features, image_shape: Sequence[int]) -> None:
        """Write one image, its camera and its features.

        Parameters
        ----------
        name : str
            One of `names`.
        features : Features
            N features with descriptors of 128 bytes in Lowe's order, on any device.
        image_shape : (2,) sequence of int
            Rows and columns of the image.

        Raises
        ------
        ValueError
            COLMAP does not read the image, or reads another size, or the descriptors are not of 128 bytes.
        """
        host = features.to_host()
        check_descriptors(host)
        if name not in self._imported:
            raise ValueError(
                "must be an image that COLMAP reads, of the first one's size if there is a single camera, but COLMAP "
                "did not take it"
            )
        imported = self._imported[name]
        size = imported.camera.height, imported.camera.width
        if size != tuple(image_shape[:2]):
            raise ValueError(
                f"must have the {size[0]} rows and {size[1]} columns that COLMAP reads, got {image_shape[0]} and "
                f"{image_shape[1]}; COLMAP does not turn pictures as EXIF says"
            )
        number = imported.image.image_id
        kind = self._colmap.FeatureExtractorType.SIFT
        with self._colmap.DatabaseTransaction(self._database):
            imported.write(self._database)
            self._database.write_keypoints(number, keypoint_rows(host))
            self._database.write_descriptors(number, self._colmap.FeatureDescriptors(kind, host.descriptors))
        self._ids[name] = number

    def match(
        self,
        pairs: Iterable[Pair],
        *,
        max_ratio: float = MAX_RATIO,
        max_distance: float = MAX_DISTANCE,
        cross_check: bool = True,
        symmetric_ratio: bool = True,
        device: str = "auto",
        on_pairs: Callable[[int], object] = lambda count: None,
    ) -> tuple[int, int]:
        """Match pairs of images, and have COLMAP verify the matches by the geometry of two views.

        Parameters
        ----------
        pairs : iterable of (str, str)
            Names. Pairs with an image that was not added are left out; a pair given twice counts once.
        max_ratio, max_distance, cross_check, symmetric_ratio : optional
            As of `gpusift.matching.match`, with COLMAP's defaults.
        device : str, optional
            "auto", "cuda", "cuda:N" or "cpu".
        on_pairs : callable, optional
            Called with the number of pairs just matched, again and again.

        Returns
        -------
        matched, verified : int
            The number of pairs, and of those that COLMAP verified.
        """
        from gpusift.matching import match_pairs

        wanted = {(min(pair), max(pair)) for pair in pairs if self._ids.keys() >= set(pair)}
        for names, numbers in image_pairs.blocks(wanted, BLOCK_IMAGES):
            ids = [self._ids[name] for name in names]
            found = match_pairs(
                [self._database.read_descriptors(number).data for number in ids],
                numbers,
                max_ratio=max_ratio,
                max_distance=max_distance,
                cross_check=cross_check,
                symmetric_ratio=symmetric_ratio and cross_check,
                device=device,
            )
            with self._colmap.DatabaseTransaction(self._database):
                for (i, j), matches in zip(numbers, found):
                    indices = matches.to_host().indices.astype(np.uint32)
                    self._database.write_matches(ids[i], ids[j], indices)
            on_pairs(len(numbers))
        return len(wanted), self._verify()

    def finish(self) -> None:
        """Give the file its final name; with no image written there is none."""
        if self.unfinished():
            _remove(self.result)
            os.replace(self.partial, self.result)

    def unfinished(self) -> Path | None:
        """Close the file, and return where the partial one is; with no image written it is removed."""
        self._database.close()
        if self._ids:
            return self.partial
        _remove(self.partial)
        return None

    def _verify(self) -> int:
        """Verify all matches, the same way every time; return the number of pairs that passed."""
        self._database.close()
        geometry = self._colmap.TwoViewGeometryOptions()
        geometry.ransac.random_seed = SEED
        batches = self._colmap.ExistingMatchedPairingOptions(batch_size=VERIFIED_PAIRS)
        try:
            self._colmap.geometric_verification(
                self.partial, pairing_options=batches, two_view_geometry_options=geometry
            )
        finally:
            self._database = self._colmap.Database.open(self.partial)
        return int(self._database.num_verified_image_pairs())


@dataclass
class Written:
    """What `write_database` wrote, counted.

    Attributes
    ----------
    images, keypoints : int
        Images in the database, and their keypoints in all.
    pairs, verified : int
        Pairs of images that were matched, and of those that COLMAP verified.
    failures : list of (str, str)
        Files that are not in it, and why.
    """

    images: int = 0
    keypoints: int = 0
    pairs: int = 0
    verified: int = 0
    failures: list[tuple[str, str]] = field(default_factory=list)


def write_database(
    images: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    path: str | os.PathLike[str],
    *,
    root: str | None = None,
    sift: SIFT | None = None,
    match: str | None = None,
    overlap: int = 10,
    pairs: str | os.PathLike[str] | Iterable[Pair] | None = None,
    camera_model: str = "SIMPLE_RADIAL",
    camera_params: Sequence[float] | None = None,
    single_camera: bool = False,
    overwrite: bool = False,
) -> Written:
    """Write a COLMAP database of images: cameras, keypoints, descriptors and, if asked for, verified matches.

    Parameters
    ----------
    images : path or sequence of paths
        A folder, searched to any depth, image files or globs; see `gpusift.images.find_images`.
    path : str or path-like
        The database; it appears under this name when it is whole.
    root : str, optional
        The folder that images are named relative to, and that COLMAP's `image_path` must be. By default the folder
        given, or the deepest one that holds all of `images`.
    sift : SIFT, optional
        By default `SIFT(**SIFT_PARAMETERS)`. It must have ``descriptor_layout="ubc"``.
    match : {"exhaustive", "sequential", "pairs"}, optional
        Which images to match; by default none.
    overlap : int, optional
        For "sequential": each image with the next `overlap` ones, in the order of names.
    pairs : path or iterable of (str, str), optional
        For "pairs": two names a pair; or a file of two names a line.
    camera_model, camera_params, single_camera, overwrite : optional
        See `Database`.

    Returns
    -------
    written : Written
        Counts, and the files that could not be read: the others are in the database all the same.

    Raises
    ------
    FileExistsError, ImportError, OSError, ValueError
        See `Database`; also if there is no image, or `sift`, `match` or `pairs` are not of these.

    Examples
    --------
    >>> from gpusift.colmap import write_database
    >>> write_database("photos", "database.db", match="exhaustive")  # doctest: +SKIP
    """
    from gpusift.images import find_images, read_image
    from gpusift.sift import SIFT

    several = [images] if isinstance(images, (str, os.PathLike)) else images
    found = find_images([os.fspath(one) for one in several], root)
    if not found.images:
        raise ValueError(f"images must be a folder with images, or images, and there are none in {images}")
    names = list(found.images)
    wanted = image_pairs.choose(match, names, overlap, pairs)
    sift = sift or SIFT(**SIFT_PARAMETERS)
    check_layout(sift)
    database = Database(
        path,
        folder_of(found.images),
        names,
        camera_model=camera_model,
        camera_params=camera_params,
        single_camera=single_camera,
        overwrite=overwrite,
    )
    written = Written(failures=found.failures)
    try:
        for name, file in found.images.items():
            try:
                image = read_image(file, exif_orientation=False)
                features = sift.compute(image)
                database.add(name, features, image.shape)
            except (OSError, ValueError) as error:
                written.failures.append((str(file), getattr(error, "reason", None) or str(error)))
                continue
            written.images += 1
            written.keypoints += len(features)
        if match is not None:
            written.pairs, written.verified = database.match(wanted, device=sift.device.name)
        database.finish()
    except BaseException:
        database.unfinished()
        raise
    return written


def check_descriptors(features: Features) -> None:
    """Raise a ValueError unless features have descriptors of 128 bytes."""
    descriptors = features.descriptors
    if descriptors is None or descriptors.dtype != np.uint8 or descriptors.shape[1] != DESCRIPTOR_BYTES:
        got = "none" if descriptors is None else f"{descriptors.shape[1]} of {descriptors.dtype}"
        raise ValueError(f"descriptors must be of 128 bytes, got {got}; use n_hist=4 and n_ori=8")


def check_layout(sift: SIFT) -> None:
    """Raise a ValueError unless a SIFT's descriptors are in Lowe's order, which COLMAP shares."""
    layout = sift.parameters.descriptor_layout
    if layout != "ubc":
        raise ValueError(f"the descriptor_layout of COLMAP must be 'ubc', got {layout!r}")


def folder_of(images: dict[str, Path]) -> Path:
    """Return the folder that the names of images are relative to, given name -> file."""
    name, file = next(iter(images.items()))
    return Path(os.path.abspath(file)).parents[name.count("/")]


def _remove(path: Path) -> None:
    """Remove a database, and what SQLite may have left beside it."""
    for file in side_files(path):
        file.unlink(missing_ok=True)


def side_files(path: Path) -> list[Path]:
    """Return a database, and the files beside it in which SQLite keeps what is new while it is open."""
    return [path.with_name(path.name + suffix) for suffix in ("", "-wal", "-shm")]
