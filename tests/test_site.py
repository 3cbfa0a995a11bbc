"""The documentation as a site: it builds without a warning, has a page for each method, and its sweeps load."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
from pathlib import Path

import pytest

from crwn.methods import METHODS
from orchestrator.sweeps.reading import load_sweep
from tests import documents

ROOT = Path(__file__).resolve().parents[1]


def sweep_of(text: str) -> str:
    """The sweep on a page."""
    (found,) = re.findall(r"```yaml\n(.*?)```", text, flags=re.DOTALL)
    return str(found)


@pytest.mark.parametrize("name", METHODS)
def test_a_methods_page_explains_its_settings_and_has_a_sweep(name: str, tmp_path: Path) -> None:
    """Every setting has a row with a meaning; the sweep asks for the method at three seeds."""
    page = documents.page(name)
    rows = re.findall(r"^\| `(\w+)` \| .* \| (.+) \|$", page, flags=re.MULTILINE)
    settings = [field.name for field in dataclasses.fields(METHODS[name].spec) if field.init]
    assert [setting for setting, _ in rows] == settings
    file = tmp_path / "one.yaml"
    file.write_text(sweep_of(page), encoding="utf-8")
    assert [trial.method.kind for trial in load_sweep(file).trials] == [name] * 3


def test_the_first_hours_sweep_loads(tmp_path: Path) -> None:
    """What the page has people save as a file."""
    file = tmp_path / "mine.yaml"
    file.write_text(sweep_of((ROOT / "docs" / "first-hour.md").read_text(encoding="utf-8")), encoding="utf-8")
    assert len(load_sweep(file).trials) == 12


@pytest.mark.slow(reason="reads every document, draws every page: half a minute")
def test_the_site_builds_without_a_warning(tmp_path: Path) -> None:
    """No dead link, no page that cannot be reached; its first page leads on."""
    command = [sys.executable, "-m", "sphinx", "--fail-on-warning", "--keep-going", "-c", "docs", "-b", "html", "."]
    done = subprocess.run([*command, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "docs/index.html" in (tmp_path / "index.html").read_text(encoding="utf-8")
    for name in METHODS:
        assert (tmp_path / "docs" / "methods" / f"{name}.html").exists()
    addresses = {
        address
        for page in tmp_path.rglob("*.html")
        for address in re.findall(
            r"""<(?:script|link|img)[^>]*(?:src|href)="(https?:[^"]*)""", page.read_text(encoding="utf-8")
        )
    }
    assert addresses == set(), "expected a site that loads nothing from the network"
