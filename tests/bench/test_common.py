"""What all measurements of engines share: which photographs and runs count, and the check before anything is timed."""

from types import SimpleNamespace

import numpy as np
import pytest

from bench.common import photographs, tables
from bench.common.comparison import check_counts
from bench.common.engines import GpusiftCPU
from bench.peers import run as peers
from bench.speed import run


def test_wrong_number_of_keypoints_is_not_timed():
    reference = {"scikit-image": 2000, "opencv": 1700}
    check_counts({"gpusift-cpu": 2002, **reference})
    check_counts({"gpusift-cpu": 2003, "opencv": 1700})
    with pytest.raises(SystemExit, match=r"gpusift-cpu must find 2000 keypoints .* found 2003"):
        check_counts({"gpusift-cpu": 2003, **reference})


def test_newest_standard_run_of_each_machine_counts():
    def row(run, standard, cpu="a", gpu=None):
        hardware = {"cpu": cpu, "cores": 2, "instruction_set": None, "gpu": gpu and {"name": gpu}}
        return {"run": run, "standard": standard, "hardware": hardware}

    rows = [row("3", False), row("1", True), row("2", True), row("2", True), row("1", False, "b", "H")]
    chosen = tables.newest_runs(rows)
    assert [(run[0]["hardware"]["cpu"], run[0]["run"], len(run)) for run in chosen] == [("b", "1", 1), ("a", "2", 2)]


def test_cases_are_chosen_by_megapixels(monkeypatch):
    monkeypatch.delenv("GPUSIFT_DATA", raising=False)
    for module, names in ((run, ["0.4", "2", "9"]), (peers, ["0.4", "2", "9", "24"])):
        cases = module.cases_of(module.arguments([]))
        assert [case.name.split(" MP")[0] for case in cases] == names
    (large,) = peers.cases_of(peers.arguments(["--cases", "24"]))
    assert large.source == (4000, 6000)
    assert not run.arguments(["--cases", "2"]).standard
    assert run.arguments([]).standard
    with pytest.raises(SystemExit, match="--cases must name megapixels"):
        run.cases_of(run.arguments(["--cases", "5"]))


@pytest.mark.parametrize("module", [run, peers])
def test_an_empty_variable_names_no_folder_of_photographs(module, monkeypatch):
    monkeypatch.setenv("GPUSIFT_DATA", "")
    assert photographs.data_folder() is None
    assert module.cases_of(module.arguments([]))[1].name == "2 MP, mosaic"


def test_the_variable_names_the_folder_of_photographs_unless_an_option_does(tmp_path, monkeypatch):
    monkeypatch.setenv("GPUSIFT_DATA", str(tmp_path))
    assert run.arguments([]).data == photographs.data_folder() == tmp_path
    assert run.arguments(["--data", str(tmp_path.parent)]).data == tmp_path.parent


def test_mosaic_is_of_distinct_photographs():
    mosaic = photographs.mosaic(700, 800)
    assert mosaic.shape == (700, 800)
    assert mosaic.dtype == np.uint8
    tiles = {mosaic[r : r + 300, c : c + 375].tobytes() for r in (0, 300) for c in (0, 375)}
    assert len(tiles) == 4


def test_a_batch_of_gpusift_is_one_call_to_the_host():
    engine = GpusiftCPU()
    images = [np.zeros((12, 12), np.uint8)] * 3
    assert engine.batch(images) == 0
    calls = []

    def compute_batch(images, batch_size, *, on_host):
        calls.append((len(images), batch_size, on_host))
        return [[1, 2]] * len(images)

    engine.sift = SimpleNamespace(compute_batch=compute_batch)
    assert engine.batch(images) == 6
    assert calls == [(3, 3, True)]
