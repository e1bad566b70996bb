"""What is published: the wheel and its metadata, and the archive of the sources."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
import zipfile
from email.parser import BytesParser

import pytest

from gpusift import __version__
from tests.support.checkout import ROOT

pytestmark = pytest.mark.xdist_group("wheel")

LINK = re.compile(r"\]\(([^)\s]+)\)")
RELEASE = re.compile(
    rf"https://(?:github\.com/gpusift/gpusift/blob|raw\.githubusercontent\.com/gpusift/gpusift)/v{__version__}/"
)


@pytest.fixture(scope="module")
def description(wheel) -> str:
    """The text that PyPI shows."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        metadata = BytesParser().parsebytes(archive.read(name))
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert {url.split(", ")[0] for url in metadata.get_all("Project-URL")} >= {"Homepage", "Documentation"}
    return metadata.get_payload()


def test_one_wheel_serves_every_python(wheel):
    assert wheel.name.startswith(f"gpusift-{__version__}-py3-none-")


def test_links_hold_outside_the_repository(description):
    links = [link for link in LINK.findall(description) if not link.startswith("#")]
    assert len(links) > 10
    for link in links:
        assert RELEASE.match(link), link
        path = ROOT / RELEASE.sub("", link)
        assert path.exists(), link
        is_picture = path.suffix in {".png", ".jpg"}
        assert link.startswith("https://raw.") == is_picture, link


def test_links_within_the_page_have_their_heading(description):
    headings = {heading.lower().replace(" ", "-") for heading in re.findall(r"^#+ (.*)$", description, re.MULTILINE)}
    anchors = re.findall(r"\]\(#([^)]+)\)", description)
    assert anchors
    assert set(anchors) <= headings


def test_libraries_keep_the_symbols_of_their_runtime_to_themselves(wheel, tmp_path):
    with zipfile.ZipFile(wheel) as archive:
        libraries = [archive.extract(name, tmp_path) for name in archive.namelist() if name.endswith(".so")]
    assert libraries
    for library in libraries:
        command = ["nm", "--dynamic", "--defined-only", "--format=posix", library]
        lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
        symbols = {line.split()[0] for line in lines}
        assert symbols
        assert [symbol for symbol in symbols if not symbol.startswith("gpusift_")] == []


def test_the_sources_have_all_that_the_readme_links(tmp_path):
    code = f"import scikit_build_core.build as build; build.build_sdist({str(tmp_path)!r})"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True)
    top = f"gpusift-{__version__}"
    with tarfile.open(tmp_path / f"{top}.tar.gz") as archive:
        names = {name.removeprefix(f"{top}/") for name in archive.getnames()}
    links = [link for link in LINK.findall((ROOT / "README.md").read_text()) if not re.match("https?:|#", link)]
    missing = [link for link in links if not any(name == link or name.startswith(f"{link}/") for name in names)]
    assert missing == []
    assert {"tests/conftest.py", "kernels/extrema.cu", "Makefile"} <= names
    assert not [name for name in names if name.startswith((".venv", "build/"))]
