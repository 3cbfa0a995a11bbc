"""CONTRIBUTING.md's new method, followed step by step in a copy of the project."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
_, _, _REST = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").partition("## A new method")
GUIDE = _REST.partition("\n## ")[0]
BLOCKS = dict(re.findall(r"^```\w+ (\S+)\n(.*?)^```$", GUIDE, flags=re.MULTILINE | re.DOTALL))
"""The code of each file that the guide writes."""

LISTS = ("test_spec", "test_looks", "test_documentation", "no_trace_is_left")
"""The tests that would notice a list of methods that somebody has to keep."""


def steps(begin: str) -> list[str]:
    """The commands of the guide that begin so."""
    return re.findall(rf"^ {{4}}{re.escape(begin)} (.*)$", GUIDE, re.MULTILINE)


def followed(project: Path) -> None:
    """Write the three files."""
    registry = project / "crwn" / "methods" / "__init__.py"
    for file, text in BLOCKS.items():
        if project / file != registry:
            (project / file).write_text(text, encoding="utf-8")
    imported, entry = (line.removeprefix("+") for line in BLOCKS["crwn/methods/__init__.py"].splitlines())
    text = registry.read_text(encoding="utf-8")
    text = text.replace("from crwn.methods.protocol import", f"{imported}\nfrom crwn.methods.protocol import", 1)
    registry.write_text(text.replace("\n    },\n)", f"\n{entry}\n    }},\n)", 1), encoding="utf-8")


def contents(project: Path) -> dict[str, bytes]:
    files = (path for path in project.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {path.relative_to(project).as_posix(): path.read_bytes() for path in files}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of what is tested."""
    ignored = shutil.ignore_patterns("__pycache__", ".*cache")
    for name in ("crwn", "docs", "orchestrator", "perf", "sweeps", "tests"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=ignored)
    for name in ("Makefile", "pyproject.toml", "README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CITATION.cff"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def test_the_guide_writes_three_files() -> None:
    """The method, its line in the registry, and its cases."""
    method, registry, cases = BLOCKS
    name = Path(method).stem
    assert (method, registry) == (f"crwn/methods/{name}.py", "crwn/methods/__init__.py")
    assert cases == f"tests/methods/{name}.py"
    assert f'"{name}": MethodEntry(' in BLOCKS[registry]


@pytest.mark.slow(reason="a copy of the project gets a method, and the tests of every method run in it")
def test_a_new_method_is_three_files(project: Path) -> None:
    """Written as the guide writes it, recorded as it says, it passes what holds for every method, and lint.

    Nothing but the three files, its trace with its digest, and the two documents with tables of methods is another,
    and no test that would notice a list of methods fails.
    """
    before = contents(project)
    followed(project)
    for step in steps(".venv/bin/python"):
        subprocess.run([sys.executable, *shlex.split(step)], cwd=project, check=True)
    after = contents(project)
    changed = {name for name in after if before.get(name) != after[name]}
    name = Path(next(iter(BLOCKS))).stem
    golden = {f"tests/golden/{name}.json", "tests/golden/DIGESTS"}
    assert changed == {*BLOCKS, *golden, "docs/methods.md", "sweeps/README.md"}

    ((arguments,),) = (re.findall('ARGS="(.*)"', step) for step in steps("make test"))
    folders, _, _ = arguments.partition(" -k ")
    more = ["tests/orchestrator/report/test_looks.py"]
    chosen = " or ".join([name, *LISTS])
    command = ["pytest", "-q", "-n", "0", "-m", "not slow and not chaos and not cluster", "-k", chosen]
    found = subprocess.run(
        [sys.executable, "-m", *command, *shlex.split(folders), *more],
        cwd=project,
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stdout[-5000:]

    code = [file for file in BLOCKS if file != "crwn/methods/__init__.py"]
    for check in (["check"], ["format", "--check"]):
        subprocess.run([sys.executable, "-m", "ruff", *check, *code], cwd=project, check=True)
