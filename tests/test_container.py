"""The container's files name what is there, and keep what the image promises."""

import json
import re

import pytest

from tests.support.checkout import ROOT

yaml = pytest.importorskip("yaml")
if not (ROOT / "Dockerfile").exists():
    pytest.skip("the tests do not run from a checkout", allow_module_level=True)

DOCKERFILE = (ROOT / "Dockerfile").read_text()
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())


def test_extras_are_those_of_the_package():
    text = (ROOT / "pyproject.toml").read_text()
    table = text.split("[project.optional-dependencies]")[1].split("\n[")[0]
    extras = set(re.findall(r"^([\w-]+) = \[", table, re.MULTILINE))
    named = re.findall(r"EXTRAS=([\w,-]+)", DOCKERFILE)
    assert len(named) == 3
    for each in named:
        assert set(each.split(",")) <= extras


@pytest.mark.parametrize("instruction", ["ENTRYPOINT", "CMD", r"HEALTHCHECK .*? CMD"])
def test_processes_are_started_without_a_shell_that_would_keep_signals(instruction):
    (command,) = re.findall(rf"^{instruction} (.*)$", DOCKERFILE, re.MULTILINE)
    assert isinstance(json.loads(command), list)


def test_the_image_runs_as_an_ordinary_user():
    last_stage = DOCKERFILE.split("\nFROM ")[-1]
    assert re.findall(r"^USER (\w+)$", last_stage, re.MULTILINE) == ["gpusift"]


@pytest.mark.parametrize("name", COMPOSE["services"])
def test_services_need_no_rights_and_start_without_a_shell(name):
    service = COMPOSE["services"][name]
    assert service["read_only"]
    assert service["cap_drop"] == ["ALL"]
    assert service["tmpfs"] == ["/tmp"]
    assert service["entrypoint"][:2] == ["tini", "--"]
    assert isinstance(service["command"], list)
