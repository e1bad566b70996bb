"""The pages of the site: each is in the table of contents, and every link within the repository leads somewhere.

`make docs` builds them, with warnings as errors.
"""

from __future__ import annotations

import re
from itertools import chain
from pathlib import Path

import pytest

from tests.support.checkout import ROOT

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
NOT_ON_THE_SITE = {"README.md"}
MADE_BY_THE_BUILD = {"docs/gallery/index"}
CODE = re.compile(r"^```.*?^```|`[^`\n]+`", re.MULTILINE | re.DOTALL)
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
