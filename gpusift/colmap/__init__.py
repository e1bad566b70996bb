"""Interface to COLMAP: a database of cameras, images, keypoints, descriptors and verified matches, for its mapper.

`write_database` is `gpusift.stream.extract` to a COLMAP database, see `gpusift.sinks.colmap`, then `match_database`.
Both resume what an earlier call began.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from gpusift.colmap import guided as guided_matching
from gpusift.colmap import pairs as image_pairs
from gpusift.colmap import tracks
from gpusift.colmap.pairs import Pair
from gpusift.matching.blocks import blocks
from gpusift.sift import SIFT
from gpusift.sinks.base import OutputExistsError
from gpusift.sinks.colmap import ColmapFormat
from gpusift.sinks.colmap.cameras import CAMERA_MODEL, import_pycolmap, quiet
from gpusift.sinks.colmap.conventions import PIXEL_CENTRE, SIFT_PARAMETERS, keypoint_rows
from gpusift.sinks.local import locked
from gpusift.sources import Source, expand
from gpusift.stream import extract

__all__ = [
    "PIXEL_CENTRE",
    "SIFT_PARAMETERS",
    "Pair",
    "Written",
    "import_pycolmap",
    "keypoint_rows",
    "match_database",
    "write_database",
]

# COLMAP's matcher: of Euclidean distances between descriptors of length 512.
MAX_RATIO = 0.8
MAX_DISTANCE = 0.7 * 512

VERIFIED_PAIRS = 64  # verified together; Ctrl-C waits for them
SEED = 0  # of the random samples that verification draws


def match_database(
    path: str | os.PathLike[str],
    pairs: Iterable[Pair],
    *,
    max_ratio: float = MAX_RATIO,
    max_distance: float = MAX_DISTANCE,
    cross_check: bool = True,
    symmetric_ratio: bool = True,
    device: str = "auto",
    on_pairs: Callable[[int], object] = lambda count: None,
    refine: Mapping[str, str | os.PathLike[str]] | None = None,
    guided: bool = False,
) -> tuple[int, int]:
    """Match pairs of a database's images, and have COLMAP verify the matches by the geometry of two views.

    Parameters
    ----------
    path : str or path-like
        A database with features, which no other process writes to.
    pairs : iterable of (str, str)
        Names of images. Pairs with an image that the database does not have are left out; pairs that are matched
        already are not matched again; a pair given twice counts once.
    max_ratio, max_distance, cross_check, symmetric_ratio : optional
        As of `gpusift.matching.match`, with COLMAP's defaults.
    device : str, optional
        "auto", "cuda", "cuda:N" or "cpu".
    on_pairs : callable, optional
        Called with the number of pairs that are matched already, then with that of each block.
    refine : mapping, optional
        Name of each image -> its file, to refine the keypoints over tracks: each keypoint of a point of the scene, as
        far as verified matches tell, is aligned with the best connected one (`gpusift.refine`), and the matches are
        verified once more. Positions change; descriptors, numbers of keypoints and matches do not. It lowers the
        reprojection error of reconstructions. The database keeps the original keypoints: when images or matches are
        added, all matches are verified and refined again from there, as if all had been matched at once. If that fails,
        the original keypoints are in place.

    guided : bool, optional
        Leave matching to COLMAP's own matcher, which searches once more along the geometry of the first matches. It has
        defaults of its own, and is slower. Not with `refine`.

    Returns
    -------
    matched, verified : int
        The number of pairs that are matched, and of all pairs in the database that COLMAP verified.

    Raises
    ------
    ImportError
        pycolmap is not installed.
    OutputInUseError
        Another process writes to the database.
    ValueError
        With `refine`: the database is another program's, a file does not exist, or is not the image of the features.
    MemoryError, OSError
        With `refine`: the levels of an image do not fit in memory; a file or the database fails.
    """
    if guided and refine is not None:
        raise ValueError("guided and refine exclude each other: COLMAP's guided matches are not matched again")
    pycolmap, path = import_pycolmap(), Path(path)
    matching = {
        "max_ratio": max_ratio,
        "max_distance": max_distance,
        "cross_check": cross_check,
        "symmetric_ratio": symmetric_ratio and cross_check,
        "device": device,
    }
    sift = None if refine is None else _sift_of(path, refine, device)
    with locked(path), quiet(pycolmap):
        with pycolmap.Database.open(path) as database:
            ids = {image.name: image.image_id for image in database.read_all_images()}
            wanted = {(min(pair), max(pair)) for pair in pairs if ids.keys() >= set(pair)}
            new = {pair for pair in wanted if not database.exists_matches(*(ids[name] for name in pair))}
            on_pairs(len(wanted) - len(new))
            for names, numbers in blocks(() if guided else new):
                _match_block(pycolmap, database, [ids[name] for name in names], numbers, matching)
                on_pairs(len(numbers))
        if guided:
            guided_matching.match(pycolmap, path, sorted(new), SEED)
            on_pairs(len(new))
            return len(wanted), _count_verified(pycolmap, path)
        refines = refine is not None and tracks.begin(pycolmap, path, refine)
        verified = _verify(pycolmap, path)
        if refines and refine is not None and sift is not None and tracks.refine_tracks(pycolmap, path, refine, sift):
            verified = _verify(pycolmap, path)
        return len(wanted), verified


def _sift_of(path: Path, files: Mapping[str, str | os.PathLike[str]], device: str) -> SIFT:
    """The SIFT that made the features of a database, for refinement with these files, which must exist."""
    missing = next((os.fspath(file) for file in files.values() if not os.path.isfile(file)), None)
    if missing is not None:
        raise ValueError(f"refine needs the images as files on this machine, but {missing} is none")
    try:
        settings = ColmapFormat().recorded_settings(path)
    except OutputExistsError:
        settings = None
    if settings is None:
        raise ValueError(f"refine needs a database that gpusift wrote, but {path} is another program's")
    names = ("upsampling", "upsampling_grid", "n_octaves", "n_scales", "sigma_min", "sigma_in")
    given = {name: settings[name] for name in names if name in settings}
    return SIFT(**given, precise_upscale=True, device=device)


def _match_block(
    pycolmap: Any, database: Any, ids: Sequence[int], numbers: Sequence[tuple[int, int]], matching: Mapping[str, Any]
) -> None:
    """Match pairs of a few images, and write the matches in one transaction."""
    from gpusift.matching import match_pairs

    descriptors = [database.read_descriptors(number).data for number in ids]
    results = match_pairs(descriptors, numbers, **matching)
    with pycolmap.DatabaseTransaction(database):
        for (i, j), matches in zip(numbers, results):
            database.write_matches(ids[i], ids[j], matches.to_host().indices.astype(np.uint32))


def _verify(pycolmap: Any, path: Path) -> int:
    """Verify all matches, the same way every time; return the number of pairs that passed."""
    geometry = pycolmap.TwoViewGeometryOptions()
    geometry.ransac.random_seed = SEED
    batches = pycolmap.ExistingMatchedPairingOptions(batch_size=VERIFIED_PAIRS)
    pycolmap.geometric_verification(path, pairing_options=batches, two_view_geometry_options=geometry)
    return _count_verified(pycolmap, path)


def _count_verified(pycolmap: Any, path: Path) -> int:
    with pycolmap.Database.open(path) as database:
        return int(database.num_verified_image_pairs())


@dataclass
class Written:
    """What `write_database` wrote, counted.

    Attributes
    ----------
    images, keypoints : int
        Images in the database, and the keypoints that this call wrote.
    pairs, verified : int
        Pairs of images that are matched, and those that COLMAP verified.
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
    sift: SIFT | Mapping[str, Any] | None = None,
    match: str | None = None,
    overlap: int = 10,
    pairs: str | os.PathLike[str] | Iterable[Pair] | None = None,
    camera_model: str = CAMERA_MODEL,
    camera_params: Sequence[float] | None = None,
    single_camera: bool = False,
    camera_per: str | None = None,
    mask_path: str | os.PathLike[str] | None = None,
    max_size: int | None = None,
    refine: bool = False,
    guided: bool = False,
    vocab_tree: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
) -> Written:
    """Write a COLMAP database of images: cameras, keypoints, descriptors and, if asked for, verified matches.

    Parameters
    ----------
    images : path or sequence of paths
        Files, folders, globs or URLs; see `gpusift.sources.expand`.
    path : str or path-like
        The database: a new one, or that of an earlier call with the same settings, which is resumed.
    root : str, optional
        The folder that images are named relative to, and that COLMAP's `image_path` must be. By default the folder
        given, or the deepest one that holds all of `images`.
    sift : SIFT or mapping, optional
        What computes, or keyword arguments of `SIFT`; by default `SIFT_PARAMETERS`. It must have
        ``descriptor_layout="ubc"``.
    match : {"exhaustive", "sequential", "pairs", "spatial", "vocabtree"}, optional
        Which images to match; by default none. The last two are chosen by COLMAP, see `gpusift.colmap.pairs`.
    overlap : int, optional
        For "sequential": each image with the next `overlap` ones, in the order of names.
    pairs : path or iterable of (str, str), optional
        For "pairs": two names a pair; or a file of two names a line.
    camera_model : str, optional
        "SIMPLE_PINHOLE", "PINHOLE", "SIMPLE_RADIAL", "RADIAL", "OPENCV" or another model of COLMAP's.
    camera_params : sequence of float, optional
        Its parameters, in COLMAP's order, for all cameras; by default from EXIF, or guessed.
    single_camera : bool, optional
        All images are of one camera, and so of one size.
    camera_per : {"folder", "image"}, optional
        Each folder, or each image, has a camera of its own.
    mask_path : path, optional
        A folder with a mask for each image, `<name>.png`: no keypoints at pixels that are 0 in it.
    max_size : int, optional
        Images whose longer side is larger are shrunk for SIFT; by default 3200.
    refine : bool, optional
        Refine the keypoints over tracks, see `match_database`. Needs `match`, and images on this machine.
    guided, vocab_tree : optional
        As for `match_database`, and for `gpusift.colmap.pairs.from_database`.
    overwrite : bool, optional
        Replace the database, instead of resuming.

    Returns
    -------
    written : Written
        Counts, and the files that could not be read: the others are in the database all the same.

    Raises
    ------
    ValueError
        There is no image; or `sift`, `match`, `pairs` or the camera are not of these.
    ImportError, OSError, RunError
        As `gpusift.stream.extract`.

    Examples
    --------
    >>> from gpusift.colmap import write_database
    >>> write_database("photos", "database.db", match="exhaustive")  # doctest: +SKIP
    """
    if refine and match is None:
        raise ValueError("refine needs matches: give match='exhaustive', 'sequential' or 'pairs'")
    several = [images] if isinstance(images, (str, os.PathLike)) else images
    sources = list(expand([os.fspath(each) for each in several], root=root))
    names = [source.name for source in sources if isinstance(source, Source)]
    if not names:
        raise ValueError(f"images must be a folder with images, or images, and there are none in {images}")
    wanted = image_pairs.choose(match, names, overlap, pairs)
    written = Written()

    def note(event: dict[str, Any]) -> None:
        if event["event"] == "failed":
            written.failures.append((event["url"], event["reason"]))

    summary = extract(
        sources,
        f"colmap:{os.fspath(path)}",
        sift,
        format_settings={
            "camera_model": camera_model,
            "camera_params": None if camera_params is None else [float(value) for value in camera_params],
            "single_camera": single_camera,
            "camera_per": camera_per,
            "mask_path": None if mask_path is None else os.path.realpath(mask_path),
        },
        max_size=max_size,
        overwrite=overwrite,
        on_event=note,
    )
    written.images, written.keypoints = summary.images + summary.skipped, summary.keypoints
    if match is not None:
        device = sift.device.name if isinstance(sift, SIFT) else dict(sift or {}).get("device", "auto")
        files = {source.name: source.url for source in sources if isinstance(source, Source)} if refine else None
        if match in image_pairs.FROM_DATABASE:
            wanted = image_pairs.from_database(path, match, vocab_tree)
        written.pairs, written.verified = match_database(path, wanted, device=device, refine=files, guided=guided)
    return written
