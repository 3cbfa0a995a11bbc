"""How `make docs` makes a site of the project's Markdown files, as they stand in its folders. Needs no network."""

from __future__ import annotations

import sys
from importlib import metadata
from pathlib import Path

from sphinx.application import Sphinx

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # for the generator of the pages of methods, which is not installed

project = "crwn"
version = release = metadata.version("crwn")
copyright = "the authors of crwn, Apache-2.0"  # noqa: A001 (Sphinx's name for it)

# The source is the project's own folder, so that a link between two files leads to the same place here and in a
# repository's browser.
root_doc = "docs/index"
include_patterns = ["README.md", "[AC]*.md", "docs/**.md", "sweeps/README.md", "perf/README.md"]

extensions = ["myst_parser", "sphinx_copybutton"]
myst_heading_anchors = 3
nitpicky = True
copybutton_only_copy_prompt_lines = False

html_theme = "furo"
html_title = "crwn"
html_static_path: list[str] = []
html_css_files: list[str] = []
html_additional_pages = {"index": "to_first_page.html"}
templates_path = ["templates"]
html_copy_source = False
html_show_sphinx = False


def setup(app: Sphinx) -> None:
    """Make the page of each method before files are looked for."""
    app.connect("config-inited", lambda *_: _write_methods())


def _write_methods() -> None:
    from tests import documents  # noqa: PLC0415 (its folder is on the path only now)

    documents.write_pages(ROOT / "docs" / "methods")
