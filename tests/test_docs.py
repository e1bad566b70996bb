"""The pages of the site: each is in the table of contents, and every link within the repository leads somewhere.

`make docs` builds them, with warnings as errors.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from itertools import chain
from pathlib import Path

import cv2
import pytest

from tests.support.checkout import ROOT
from tests.support.command import run

yaml = pytest.importorskip("yaml", reason="PyYAML is missing: pip install pyyaml")
if not (ROOT / "docs" / "_toc.yml").exists():
    pytest.skip("the tests do not run from a checkout", allow_module_level=True)

PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for path in chain(
        ROOT.glob("*.md"),
        ROOT.glob("docs/*.md"),
        ROOT.glob("docs/*.rst"),
        ROOT.glob("docs/api/*.rst"),
        ROOT.glob("bench/**/*.md"),
    )
)
HOW_TOS = [page for page in PAGES if page.startswith("docs/howto-")]
NOT_ON_THE_SITE = {"README.md"}
MADE_BY_THE_BUILD = {"docs/gallery/index"}
CODE = re.compile(r"^```.*?^```|`[^`\n]+`", re.MULTILINE | re.DOTALL)
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")


def listed(entry: object) -> list[str]:
    """All pages of a part of the table of contents, in order."""
    if isinstance(entry, list):
        return [name for item in entry for name in listed(item)]
    if isinstance(entry, dict):
        own = [entry[key] for key in ("root", "file") if key in entry]
        return own + listed([entry[key] for key in ("subtrees", "entries") if key in entry])
    return []


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as code hosts and the site make them."""
    headings = re.findall(r"^#+ (.*)$", CODE.sub(lambda match: match[0].strip("`"), text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_table_of_contents_has_every_page_once():
    names = listed(yaml.safe_load((ROOT / "docs" / "_toc.yml").read_text()))
    assert len(names) == len(set(names))
    assert set(names) - MADE_BY_THE_BUILD == {
        Path(page).with_suffix("").as_posix() for page in set(PAGES) - NOT_ON_THE_SITE
    }


@pytest.mark.parametrize("page", [page for page in PAGES if page.endswith(".md")])
def test_links_lead_somewhere(page):
    path = ROOT / page
    for link in LINK.findall(CODE.sub("", path.read_text())):
        if re.match(r"https?:|mailto:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (path.parent / name).resolve() if name else path
        assert target.exists(), link
        assert target.is_relative_to(ROOT), link
        if anchor:
            assert anchor in anchors(target.read_text()), link


@pytest.mark.parametrize("page", HOW_TOS)
def test_how_tos_do_what_they_say(page, tmp_path, monkeypatch):
    """Their commands of gpusift and their Python run, in order, on a small stereo pair."""
    text = (ROOT / page).read_text()
    for package in ("torch", "pycolmap"):
        if f"import {package}" in text or (package == "pycolmap" and "colmap" in page):
            pytest.importorskip(package, reason=f"{package} is missing: pip install {package}")
    data = Path(pytest.importorskip("skimage.data").__file__).parent
    (tmp_path / "photographs").mkdir()
    for name in ("motorcycle_left.png", "motorcycle_right.png"):
        picture = cv2.resize(cv2.imread(str(data / name)), None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
        cv2.imwrite(str(tmp_path / "photographs" / name), picture)
    (tmp_path / "pairs.txt").write_text("motorcycle_left.png motorcycle_right.png\n")
    monkeypatch.chdir(tmp_path)
    blocks = BLOCK.findall(text)
    assert blocks
    namespace: dict[str, object] = {}
    for language, code in blocks:
        if language == "python":
            exec(compile(code, page, "exec"), namespace)
        for line in code.splitlines():
            if line.startswith("gpusift "):
                result = run(*shlex.split(line, comments=True)[1:])
                assert result.exit_code == 0, result.output


def test_the_pictures_of_the_concepts_are_drawn(tmp_path):
    pytest.importorskip("matplotlib")
    drawn = subprocess.run(
        [sys.executable, "-W", "error", ROOT / "docs" / "pictures.py", tmp_path],
        env={**os.environ, "MPLBACKEND": "Agg"},
        capture_output=True,
        text=True,
    )
    assert drawn.returncode == 0, drawn.stderr
    assert {path.name for path in tmp_path.iterdir()} == {path.name for path in (ROOT / "docs" / "pictures").iterdir()}
