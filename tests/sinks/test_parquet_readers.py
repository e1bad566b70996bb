"""Tables of the programs that people open Parquet folders with: the folder is read as the run left it."""

import cv2
import numpy as np
import pytest

import gpusift
from gpusift import SIFT
from tests.support.pictures import blobs

READERS = {
    "pandas": lambda pandas, folder: pandas.read_parquet(folder).to_dict("list"),
    "polars": lambda polars, folder: (
        polars.scan_parquet(folder, hidden_file_prefix="_").collect().to_dict(as_series=False)
    ),
    "duckdb": lambda duckdb, folder: duckdb.sql(f"from '{folder}/*.parquet'").fetchnumpy(),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with settings and failures beside the Parquet file."""
    here = tmp_path_factory.mktemp("parquet")
    (here / "photos").mkdir()
    for seed in range(3):
        assert cv2.imwrite(str(here / "photos" / f"{seed}.png"), blobs(seed))
    (here / "photos" / "3.png").write_bytes(b"no image")
    summary = gpusift.extract(here / "photos", here / "features.parquet", SIFT(device="cpu"))
    assert (summary.images, summary.failures) == (3, 1)
    assert {path.name[0] for path in (here / "features.parquet").iterdir()} == {"_", "p"}
    return here / "features.parquet"


@pytest.mark.parametrize("reader", READERS)
def test_the_folder_is_read_as_it_lies(reader, folder):
    program = pytest.importorskip(reader, reason=f"the package is missing: pip install {reader}")
    table = READERS[reader](program, folder)
    assert sorted(table["name"]) == ["0.png", "1.png", "2.png"]
    for name, rows, descriptors in zip(table["name"], table["rows"], table["descriptors"], strict=True):
        features = SIFT(device="cpu").compute(blobs(int(name[0])))
        np.testing.assert_array_equal(np.asarray(rows, np.float32), features.positions[:, 0])
        assert bytes(descriptors) == features.descriptors.tobytes()
