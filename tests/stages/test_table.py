"""The table of stages: every stage has all that it needs, and one that lacks something is told where."""

import re
import shutil

import pytest

from gpusift import SIFT, pipeline
from gpusift.stages import STAGES, Stage
from gpusift.stages.intensities import image_of
from tests.support.checkout import ROOT
from tests.support.same_bytes import synthetic
from tests.support.stage_table import gaps


def test_every_stage_has_all_it_needs():
    assert gaps(ROOT, STAGES) == []


def sharpen(work):
    return []


sharpen.__module__ = "gpusift.stages.sharpening"
MADE_UP = Stage("sharpening", sharpen, "sharpening.cu", "made up")


def test_a_stage_that_is_a_row_alone_is_told_what_it_lacks():
    found = gaps(ROOT, [*STAGES, MADE_UP])
    assert len(found) == 2
    assert all(re.match(r"gpusift/stages/__init__\.py:\d+: the stage 'sharpening' lacks ", line) for line in found)
    for place in (r"tests/stages/test_sharpening\.py:1", r"kernels/sharpening\.cu:1"):
        assert any(re.search(f"; add it at {place}$", line) for line in found), place


def test_a_stage_with_kernels_is_told_what_the_host_and_the_bench_lack(tmp_path):
    for folder in ("kernels", "gpusift/stages", "bench/kernels"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    (tmp_path / "kernels" / "sharpening.cu").write_text("KERNEL sharpen(int n) {}\n")
    found = [line for line in gaps(tmp_path, [*STAGES, MADE_UP]) if "'sharpening'" in line]
    for what in ("its file in the CPU library", "the kernel 'sharpen' in the CPU library's table"):
        assert any(re.search(f"lacks {what}; add it at kernels/host/kernels.cpp:[0-9]+$", line) for line in found), what
    assert any(re.search(r"the work of its kernels; add it at bench/kernels/traffic\.py:\d+$", line) for line in found)


@pytest.mark.parametrize("file", ["kernels/sharpening.cu", "gpusift/stages/sharpening.py"])
def test_a_file_that_no_row_names_is_told_where_the_table_is(tmp_path, file):
    for folder in ("kernels", "gpusift", "bench", "tests"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("results", "__pycache__"))
    (tmp_path / file).touch()
    (line,) = gaps(tmp_path, STAGES)
    assert re.search(rf"^{file}:1: no stage has this .*; add a row to gpusift/stages/__init__\.py:\d+$", line)
    assert "STAGES" in (ROOT / "gpusift/stages/__init__.py").read_text().splitlines()[int(line.rpartition(":")[2]) - 1]


@pytest.mark.parametrize("max_keypoints", [None, 5])
def test_stages_run_in_the_order_of_the_table(max_keypoints):
    ended = []
    sift = SIFT(device="cpu", max_keypoints=max_keypoints)
    pipeline.compute(sift.plans, [image_of(synthetic(60, 60))], on_stage=ended.append)
    unused = {"affine shape"} | ({"keypoint limit", "feature limit"} if max_keypoints is None else set())
    assert ended == ["upload", *(stage.name for stage in STAGES if stage.name not in unused)]
