"""The soak of a cluster: how its outputs are compared."""

import numpy as np
import pytest

from bench.jobs import outputs, soak


def test_differences_are_named(tmp_path):
    folder = tmp_path / "npz"
    folder.mkdir()
    for name in "abc":
        np.savez(folder / f"{name}.png.npz", descriptors=np.zeros(4))
    expected, doubled = outputs.contents(folder)
    assert doubled == []
    assert soak.differences(folder, expected) == []

    (folder / "a.png.npz").unlink()
    np.savez(folder / "b.png.npz", descriptors=np.ones(4))
    np.savez(folder / "d.png.npz", descriptors=np.ones(4))
    (folder / ".b.png.npz.tmp").touch()
    (folder / "failures.jsonl").write_text('{"name": "c.png", "reason": "the disk is full"}\n')
    assert soak.differences(folder, expected) == [
        "lost: 1: ['a.png']",
        "doubled: 1: ['c.png']",
        "unexpected: 1: ['d.png']",
        "different: 2: ['b.png', 'c.png']",
        "files left: 1: ['.b.png.npz.tmp']",
    ]


@pytest.mark.parametrize(
    "name", ["_pending-1-a.parquet", "._pending-1-a.parquet.x.tmp", "_journal-00000001", "f.h5.lock"]
)
def test_files_of_a_run_that_goes_on_are_left(tmp_path, name):
    assert soak.is_left(tmp_path / name)
    assert not soak.is_left(tmp_path / "part-a.parquet")
