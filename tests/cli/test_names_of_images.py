"""What images are called from one run to the next, in every kind of output: nothing is computed and kept twice."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest

from gpusift import stream
from gpusift.sources import BaseDiffersError, expand
from tests.support.checkout import ROOT
from tests.support.command import run
from tests.support.pictures import blobs

OUTPUTS = ["f.h5", "f.parquet", "f.db", "f"]


@pytest.fixture
def photos(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for i, name in enumerate(("2025/a.png", "2025/b.png", "2026/c.png", "2026/note.txt", "2026/x.XMP")):
        Path(name).parent.mkdir(exist_ok=True)
        cv2.imwrite(f"{name}.png", blobs(i))
        os.replace(f"{name}.png", name)
    return tmp_path


def extract(*arguments: str, output: str) -> tuple[int, str]:
    done = run("extract", *arguments, "-o", output, "--upsampling", "1")
    return done.exit_code, done.output


@pytest.mark.parametrize("output", OUTPUTS)
def test_another_folder_is_refused_and_both_are_shown(photos, output):
    assert extract("2025", output=output)[0] == 0
    for arguments in (("2025", "2026"), ("2026/c.png",), ("2025", "--root", ".")):
        code, text = extract(*arguments, output=output)
        assert code
        assert f"{photos}/2025," in text
    assert "0 of 2" in extract("2025/a.png", "2025/b.png", output=output)[1]
    assert extract("2025", "2026", "--overwrite", output=output)[0] == 0
    assert "0 of 3" in extract("2025", "2026", output=output)[1]


@pytest.mark.parametrize("output", OUTPUTS)
def test_the_folder_of_the_first_run_stays(photos, output):
    assert extract("2025", "2026", output=output)[0] == 0
    for arguments in (("2025",), ("2026/*.png",), (".",), ("2026/c.png", "--root", ".")):
        code, text = extract(*arguments, output=output)
        assert code == 0
        assert text.startswith("0 of ")


@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("prefix", ["", "{}/"])
def test_a_list_that_grows_computes_what_is_new(photos, output, prefix):
    lines = [prefix.format(photos) + name for name in ("2025/a.png", "2025/b.png", "2026/c.png")]
    Path("list").write_text("\n".join(lines[:2]))
    assert "2 of 2" in extract("--files-from", "list", output=output)[1]
    Path("list").write_text("\n".join(lines))
    assert "1 of 3" in extract("--files-from", "list", output=output)[1]


def test_a_folder_that_was_moved_is_resumed_by_its_new_root(photos):
    assert extract("2025", output="f")[0] == 0
    os.rename("2025", "moved")
    code, text = extract("moved", output="f")
    assert code
    assert "--root" in text
    assert "0 of 2" in extract("moved", "--root", "moved", output="f")[1]


def test_the_python_interface_keeps_the_folder_too(photos):
    sift = {"upsampling": 1, "device": "cpu"}
    assert stream.extract("2025", "f.h5", sift).images == 2
    with pytest.raises(BaseDiffersError):
        stream.extract(["2025", "2026"], "f.h5", sift)
    assert stream.extract("2025", "f.h5", sift).skipped == 2
    assert stream.extract(list(expand(["2026"])), "f.h5", sift).images == 1  # named by the caller


@pytest.mark.parametrize("output", OUTPUTS)
def test_shards_divide_the_images(photos, output):
    done = [
        run("extract", ".", "-o", f"{i}-{output}", "--shard", f"{i}/3", "-q", "--log-json", "log") for i in range(3)
    ]
    assert sum("no image found" in each.output for each in done) == sum(each.exit_code != 0 for each in done)
    events = [json.loads(line) for line in Path("log").read_text().splitlines()]
    names = [event["name"] for event in events if event["event"] == "image"]
    assert sorted(names) == ["2025/a.png", "2025/b.png", "2026/c.png"]


def test_shards_are_merged(photos):
    """As docs/cluster.md says."""
    text = (ROOT / "docs" / "cluster.md").read_text()
    code = next(block for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL) if "merged" in block)
    os.mkdir("features")
    for i in range(2):
        run("extract", "2025", "2026", "--upsampling", "1", "--shard", f"{i}/2", "-o", f"features/{i}.h5")
    exec(code, {})
    run("extract", "2025", "2026", "--upsampling", "1", "-o", "whole.h5")
    with h5py.File("features.h5") as merged, h5py.File("whole.h5") as whole:
        datasets: list[str] = []
        whole.visititems(lambda name, item: datasets.append(name) if isinstance(item, h5py.Dataset) else None)
        assert len(datasets) == 3 * 6
        for name in datasets:
            np.testing.assert_array_equal(merged[name][()], whole[name][()])


@pytest.mark.parametrize("shard", ["", "1", "3/3", "-1/2", "1/0", "a/b"])
def test_wrong_shards(photos, shard):
    done = run("extract", ".", "-o", "f", "--shard", shard)
    assert done.exit_code == 2
    assert "I/N" in done.output


def test_limits_and_what_is_left_out(photos):
    code, text = extract("2026", output="f")
    assert "2 other files left out (.txt 1, .xmp 1)" in text
    assert code == 0
    assert "limit entries" in extract("2026", "--limit", "entries=2", output="g")[1]
    assert "must be one of" in extract("2026", "--limit", "none=2", output="g")[1]


def test_an_archive_and_a_url_of_a_file(photos):
    subprocess.run([sys.executable, "-m", "zipfile", "-c", "a b.zip", "2025/"], check=True)
    assert "2 of 2" in extract("a b.zip", output="f")[1]
    assert "2 of 2" in extract((photos / "a b.zip").as_uri(), output="g")[1]
