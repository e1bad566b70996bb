"""Datasets of an image or of a pair of images, written to an open file, see `gpusift.hdf5`."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np

from gpusift.hdf5.layout import Columns
from gpusift.hdf5.reading import PROVENANCE
from gpusift.provenance import Provenance

# Of datasets; the uncertainty is hloc's default for detectors that state none, in pixels.
ATTRIBUTES = {"keypoints": {"uncertainty": 1.0}}


def write_group(
    file: Any, name: str, arrays: Mapping[str, np.ndarray | Columns], provenance: Provenance | None = None
) -> None:
    """Write the datasets of `hloc_arrays` or `hloc_matches` to an open file; all of them or none.

    Parameters
    ----------
    file : h5py.File
        Open for writing.
    name : str
        The group, which has none of these datasets; it may exist, because of names that continue with a slash.
    arrays : mapping
        The datasets, or what `hloc_data` returns.
    provenance : Provenance, optional
        Of the features, for the attribute of the group.

    Raises
    ------
    ValueError
        The file cannot have a group of this name, or has such datasets in it.
    """
    group, done = file.require_group(name), []
    try:
        if provenance is not None:
            group.attrs[PROVENANCE] = replace(provenance, normalization="root", bias=0.0).as_json()
        for key, array in arrays.items():
            is_whole = isinstance(array, np.ndarray)
            options = {"data": array} if is_whole else {"shape": array.shape, "dtype": array.dtype}
            data = group.create_dataset(key, **options)
            done.append(key)
            data.attrs.update(ATTRIBUTES.get(key, {}))
            if isinstance(array, Columns):
                for columns in array.slices():
                    data[:, columns] = array.convert(columns).astype(array.dtype, order="C")
    except BaseException:  # a full disk or Ctrl-C must not leave half an image behind
        with suppress(Exception):
            for key in done:
                del group[key]
            if not len(group):
                del file[name]
        raise
