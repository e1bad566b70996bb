"""The site: `make docs`.

The source folder is the whole repository, so that the links of its Markdown hold on the site as they do on a code host.
The order of the pages is in `_toc.yml`.
"""

import importlib.util
import re
import shutil
import sys
import warnings
from pathlib import Path

from sphinx_gallery.scrapers import figure_rst

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
sys.path.insert(0, str(ROOT))

import gpusift  # noqa: E402 - from this checkout

# Examples run in a copy of their folder, where they leave files.
EXAMPLES = ROOT / "build" / "docs" / "examples"
shutil.rmtree(EXAMPLES, ignore_errors=True)
shutil.copytree(ROOT / "examples", EXAMPLES)

project = "gpusift"
author = "the gpusift developers"
copyright = author
version = release = gpusift.__version__

extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.extlinks",
    "sphinx_click",
    "sphinx_copybutton",
    "sphinx_external_toc",
    "sphinx_gallery.gen_gallery",
]
external_toc_path = "docs/_toc.yml"
include_patterns = ["docs/**", "bench/**.md", "CHANGELOG.md", "CONTRIBUTING.md"]
exclude_patterns = ["docs/gallery/*.py"]
nitpicky = True
default_role = "code"
smartquotes_action = "qe"  # leaves the dashes of options

extlinks = {"doi": ("https://doi.org/%s", "doi:%s")}
suppress_warnings = [
    "config.cache",  # the gallery's settings hold a function
    "etoc.toctree",  # the gallery's index has a table of contents of its own
    "myst.header",  # tables that a bench writes begin with small headings, to be pasted into other pages
]

myst_enable_extensions = ["deflist"]
myst_heading_anchors = 3

# Docstrings state the types; annotations in signatures would say them twice.
autodoc_typehints = "none"
autodoc_member_order = "bysource"
numpydoc_show_class_members = False
numpydoc_validation_checks = {
    "GL06",  # unknown sections
    "GL07",  # sections out of order
    "PR02",  # described parameters that do not exist
    "PR03",  # parameters out of order
    "SS01",  # no summary
    "YD01",  # yields without a description
}

html_theme = "furo"
html_title = f"gpusift {version}"
html_static_path = ["_static"]
html_css_files = ["tables.css"]
html_additional_pages = {"index": "redirect.html"}
templates_path = ["_templates"]
html_theme_options = {
    "source_repository": "https://github.com/gpusift/gpusift/",
    "source_branch": "main",
    "source_directory": "",
}


def written_pictures(block: object, block_vars: dict, gallery_conf: dict) -> str:
    """Show the PNG files that an example wrote into its folder."""
    names = []
    for path in sorted(Path(block_vars["src_file"]).parent.glob("*.png")):
        names.append(next(block_vars["image_path_iterator"]))
        shutil.move(path, names[-1])
    return figure_rst(names, gallery_conf["src_dir"])


def runs(name: str) -> bool:
    """Whether the packages that an example needs are installed."""
    return name != "batch_with_pytorch" or importlib.util.find_spec("torch") is not None


sphinx_gallery_conf = {
    "examples_dirs": str(EXAMPLES),
    "gallery_dirs": str(DOCS / "gallery"),
    "filename_pattern": "|".join(f"/{path.stem}" for path in EXAMPLES.glob("*.py") if runs(path.stem)),
    "default_thumb_file": str(DOCS / "pictures" / "keypoints.jpg"),
    "image_scrapers": ("matplotlib", written_pictures),
    "abort_on_example_error": True,
    "download_all_examples": False,
    "show_memory": False,
    "show_signature": False,
    "write_computation_times": False,
    "min_reported_time": 10**6,
}

warnings.filterwarnings("error", module="gpusift")


# Titles of tables that a bench writes without one.
TITLES = {
    "bench/results/accuracy": "Accuracy by sequence",
    "bench/results/conformance": "Conformance by kind of picture",
    "bench/results/opencv_inliers": "Verified inliers beside OpenCV",
    "bench/results/peers": "Speed beside other programs",
    "bench/results/reconstruction": "Reconstruction by COLMAP's mapper",
    "bench/results/speed": "Speed beside OpenCV and scikit-image",
}


def adapt_markdown(app: object, name: str, source: list[str]) -> None:
    """Lead links to the folder of examples to their pages, and give each page a title."""
    source[0] = re.sub(r"\]\((\.\./|)examples\)", "](/docs/gallery/index.rst)", source[0])
    if name in TITLES:
        source[0] = f"# {TITLES[name]}\n\n{source[0]}"


def escape_help(app: object, context: object, lines: list[str]) -> None:
    """Show asterisks of the command line's help as they are."""
    lines[:] = [re.sub(r"(?<!\*)\*(?!\*)", r"\\*", line) for line in lines]


def setup(app: object) -> None:
    """Connect the functions above to Sphinx."""
    app.connect("source-read", adapt_markdown)
    for part in ("description", "options", "arguments", "epilog"):
        app.connect(f"sphinx-click-process-{part}", escape_help)
