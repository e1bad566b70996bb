"""The container's files. Docker is not run: each instruction that can be tried without an image is.

The wheel is built from the files that the build stage copies, and installed as the RUN line says. What no test here
covers: the base images, Debian's packages, and the image as a whole.
"""

import json
import re
import socket
import subprocess
import sys

import pytest
from click.testing import CliRunner

from gpusift import cli
from gpusift.cli.job import IMAGES_FAILED
from tests.support.checkout import ROOT

yaml = pytest.importorskip("yaml", reason="PyYAML is missing: pip install pyyaml")
if not (ROOT / "Dockerfile").exists():
    pytest.skip("the tests do not run from a checkout", allow_module_level=True)

DOCKERFILE = (ROOT / "Dockerfile").read_text()
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
WORKFLOW = yaml.safe_load((ROOT / ".github" / "workflows" / "container.yml").read_text())
EXTRAS = [*re.findall(r"EXTRAS=([\w,-]+)", DOCKERFILE), ""]


def run_lines():
    """The RUN instructions of the last stage, without their mounts."""
    stage = re.sub(r"\\\n\s*", "", re.sub(r"^\s*#.*\n", "", DOCKERFILE.split("\nFROM ")[-1], flags=re.MULTILINE))
    return [re.sub(r"^(--\S+\s+)*", "", line) for line in re.findall(r"^RUN (.*)$", stage, re.MULTILINE)]


def shell(line, **variables):
    done = subprocess.run(
        ["sh", "-euc", line], env={"PATH": "/usr/bin:/bin", **variables}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.xdist_group("wheel")
@pytest.mark.parametrize("extras", EXTRAS)
def test_the_wheel_is_installed_with_each_list_of_extras(wheel, extras):
    assert len(EXTRAS) == 4
    (line,) = [line for line in run_lines() if line.startswith("pip install")]
    record = 'pip() { for argument; do :; done; printf %s "$argument"; }; '
    argument = shell(record + line.replace("/wheel", str(wheel.parent)), EXTRAS=extras)
    assert argument == str(wheel) + (f"[{extras}]" if extras else "")
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--no-deps", "--no-index", "--ignore-installed"]
    done = subprocess.run([*command, argument], capture_output=True, text=True)
    assert "Would install gpusift" in done.stdout, done.stderr
    assert "does not provide the extra" not in done.stderr


def test_the_workflow_builds_what_the_dockerfile_documents():
    built = {variant["extras"] for variant in WORKFLOW["jobs"]["image"]["strategy"]["matrix"]["include"]}
    assert built == {extras for extras in EXTRAS if extras}


def test_every_base_is_pinned_by_its_digest():
    """The workflow reads name and digest of the base from the Dockerfile, for the labels of the image."""
    first, *others = re.findall(r"^FROM (.*)$", DOCKERFILE, re.MULTILINE)
    assert re.fullmatch(r"python:[\w.-]+@sha256:[0-9a-f]{64} AS base", first)
    assert others == ["base AS build", "base"]
    (step,) = [step for step in WORKFLOW["jobs"]["image"]["steps"] if step.get("id") == "base"]
    done = subprocess.run(
        ["sh", "-c", step["run"].replace('>> "$GITHUB_OUTPUT"', "")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    name, digest = done.stdout.splitlines()
    assert first == f"{name.removeprefix('name=')}@{digest.removeprefix('digest=')} AS base"


def test_the_recipes_name_the_exit_codes_and_the_folders_of_the_image():
    text = (ROOT / "docs" / "cluster.md").read_text()
    job = yaml.safe_load(re.search(r"```yaml\n(.*?)```", text, re.DOTALL)[1])
    spec = job["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    (codes,) = [rule["onExitCodes"] for rule in job["spec"]["podFailurePolicy"]["rules"] if "onExitCodes" in rule]
    assert codes["containerName"] == container["name"]
    assert IMAGES_FAILED in codes["values"]
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in spec["volumes"]}
    assert f"--uid {spec['securityContext']['runAsUser']} " in DOCKERFILE
    shards = job["spec"]["completions"]
    assert f"$JOB_COMPLETION_INDEX/{shards} " in container["args"][0]
    assert container["args"][0].startswith("exec ")


def test_the_user_can_write_to_the_cache_and_the_data(tmp_path):
    (line,) = [line for line in run_lines() if line.startswith("useradd")]
    record = 'useradd() { echo "useradd $*"; }; install() { echo "install $*"; }; '
    output = shell(record + line.replace("/cache", str(tmp_path / "cache")))
    (user,) = re.findall(r"^USER (\w+)$", DOCKERFILE.split("\nFROM ")[-1], re.MULTILINE)
    assert output.splitlines() == [f"useradd --uid 1000 --create-home {user}", f"install -d -o {user} -g {user} /data"]
    assert (tmp_path / "cache").stat().st_mode & 0o7777 == 0o1777


@pytest.mark.parametrize("instruction", ["ENTRYPOINT", "CMD"])
def test_processes_are_started_without_a_shell_that_would_keep_signals(instruction):
    (command,) = re.findall(rf"^{instruction} (.*)$", DOCKERFILE, re.MULTILINE)
    assert isinstance(json.loads(command), list)


@pytest.mark.parametrize("name", COMPOSE["services"])
def test_services_need_no_rights_and_start_without_a_shell(name):
    service = COMPOSE["services"][name]
    assert service["read_only"]
    assert service["cap_drop"] == ["ALL"]
    assert service["tmpfs"] == ["/tmp"]
    assert service["entrypoint"][:2] == ["tini", "--"]
    assert isinstance(service["command"], list)


@pytest.mark.parametrize("name", COMPOSE["services"])
def test_the_programs_of_the_services_take_their_arguments(name):
    program, *arguments = [*COMPOSE["services"][name]["entrypoint"][2:], *COMPOSE["services"][name]["command"]]
    if program == "gpusift":
        assert CliRunner().invoke(cli.main, arguments).exit_code == 0
        return
    assert program == "dask"
    *package, command = arguments[: 2 if arguments[0] == "cuda" else 1]
    module = "dask_cuda.cli" if package else f"distributed.cli.dask_{command}"
    module = pytest.importorskip(module, reason="the program is not installed")
    parser = getattr(module, command if package else "main")
    parser.make_context(command, arguments[len(package) + 1 :])


@pytest.mark.parametrize("n_workers", [0, 1])
def test_a_worker_is_healthy_while_the_scheduler_knows_it(n_workers):
    distributed = pytest.importorskip("distributed", reason='the package is missing: pip install "gpusift[dask]"')
    services = COMPOSE["services"]
    python, option, code = services["worker"]["healthcheck"]["test"][1:]
    assert (python, option) == ("python", "-c")
    assert services["cpu-worker"]["healthcheck"] == services["worker"]["healthcheck"]
    options = {"processes": False, "protocol": "tcp", "dashboard_address": ":0"}
    host = socket.gethostbyname(socket.gethostname())
    with distributed.LocalCluster(n_workers=n_workers, host=host, **options) as cluster:
        code = code.replace("tcp://scheduler:8786", cluster.scheduler_address)
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1 - n_workers, done.stderr
    assert (f"AssertionError: no worker of {host}" in done.stderr) == (n_workers == 0)
