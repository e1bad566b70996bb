"""The number of processors that a process may use."""

from __future__ import annotations

import os

import pytest

from gpusift import SIFT, processors
from gpusift.devices import cpu_info

ALL = len(os.sched_getaffinity(0))


def write(folder, **files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({"": "max 100000", "a": "max 100000", "a/b": "max 100000"}, ALL),
        ({"a/b": "100000 100000"}, 1),
        ({"a": "50000 100000", "a/b": "max 100000"}, 1),
        ({"": "20000 100000"}, 1),  # a container, whose path is that of the host
        ({"a/b": f"{ALL + 3}00000 100000"}, ALL),
        ({"a/b": "no number"}, ALL),
        ({}, ALL),
    ],
)
def test_quotas_of_version_2(tmp_path, limits, expected):
    (tmp_path / "membership").write_text("0::/a/b\n")
    for folder, limit in limits.items():
        write(tmp_path / "cgroups" / folder, cpu__max=limit + "\n")
    assert processors.available(tmp_path / "cgroups", tmp_path / "membership") == expected


@pytest.mark.parametrize("mount", ["cpu,cpuacct", "cpu"])
@pytest.mark.parametrize(("quota", "expected"), [("-1", ALL), ("1000", 1), ("100000", 1)])
def test_quotas_of_version_1(tmp_path, mount, quota, expected):
    (tmp_path / "membership").write_text("9:name=systemd:/\n1:cpu,cpuacct:/a:b\n0::/\n")
    write(tmp_path / "cgroups" / mount / "a:b", cpu__cfs_quota_us=quota, cpu__cfs_period_us="100000")
    assert processors.available(tmp_path / "cgroups", tmp_path / "membership") == expected


@pytest.mark.parametrize(("text", "expected"), [("3", 3), ("5,2", 5), ("", None), ("0", None), ("many", None)])
def test_the_cpu_device_follows_openmps_variable(monkeypatch, text, expected):
    monkeypatch.setenv("OMP_NUM_THREADS", text)
    expected = expected or processors.available()
    assert SIFT(device="cpu").device.num_threads == cpu_info()["threads"] == expected
    assert SIFT(device="cpu", num_threads=2).device.num_threads == 2


def test_a_system_without_cgroups(tmp_path):
    assert processors.available(tmp_path, tmp_path / "none") == ALL
