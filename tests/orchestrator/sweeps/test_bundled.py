"""Bundled sweeps: listed, copied, called by their names, and part of a wheel."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator.sweeps import bundled
from tests.said import left_of

Crwn = Callable[..., Any]

ROOT = Path(__file__).resolve().parents[3]


def test_every_sweep_of_the_project_is_bundled_and_says_what_it_is() -> None:
    """By its path; its opening comment has a sentence on what it runs, and one on its time on two cores."""
    known = bundled.files()
    assert set(known.values()) == set((ROOT / "sweeps").rglob("*.yaml"))
    assert {"quickstart", "hong2022/table1"} <= set(known)
    for name, file in known.items():
        said = bundled.opening(file)
        assert 20 < len(said.what) < 200, name
        assert 5 < len(said.time) < 100, name
        assert "trials" not in said.what, name


def test_the_list_has_names_times_and_data(crwn: Crwn) -> None:
    """A line for each, with the data that it reads."""
    shown = crwn("sweeps")
    assert (shown.code, shown.err) == (0, "")
    rows = {line.split("│")[1].strip(): line for line in shown.out.splitlines() if line.startswith("│")}
    assert list(rows) == list(bundled.files())
    for part in ("digits (embedded)", "one to two minutes", " 60 "):
        assert part in rows["quickstart"]
    assert "cifar100, miniimagenet" in rows["hong2022/table2"]


def test_a_sweep_is_copied_where_nothing_is(crwn: Crwn, workplace: Path) -> None:
    """Into the working folder, another folder or a file; an existing file is not replaced."""
    content = (ROOT / "sweeps/quickstart.yaml").read_bytes()
    (workplace / "mine").mkdir()
    for to, copy in (((), "quickstart.yaml"), (("mine",), "mine/quickstart.yaml"), (("my.yaml",), "my.yaml")):
        copied = crwn("sweeps", "quickstart", *to)
        assert copied.out.splitlines() == [copy, f"run it with: crwn run {copy}"]
        assert (workplace / copy).read_bytes() == content
        again = crwn("sweeps", "quickstart", *to)
        assert (again.code, again.codes) == (2, ("file-exists",))
        assert f"{copy}: " in again.err
    assert crwn("plan", "my.yaml").code == 0
    failed = crwn("sweeps", "quickstart", "no/my.yaml")
    assert failed.codes == ("file-not-written",)
    assert "no/my.yaml: " in failed.err


def test_a_bundled_sweep_is_called_by_its_name_unless_a_file_has_it(
    crwn: Crwn, workplace: Path, sweep_file: Callable[..., Path]
) -> None:
    """One line on standard error says so; a path takes precedence, but a folder is not a sweep."""
    (workplace / "quickstart").mkdir()
    named = crwn("plan", "quickstart")
    assert named.code == 0
    assert named.err == f"quickstart: using the bundled sweep {ROOT / 'sweeps/quickstart.yaml'}\n"
    assert left_of(60) + " in " + str(workplace / "runs/quickstart") in named.out
    (workplace / "quickstart").rmdir()
    sweep_file().rename(workplace / "quickstart")
    own = crwn("plan", "quickstart")
    assert (own.code, own.err) == (0, "")
    assert left_of(2) in own.out


@pytest.mark.parametrize(
    ("given", "parts"),
    [
        ("qickstart", ["qickstart: expected a sweep's file, or the name of a bundled one: ", "mean 'quickstart'?"]),
        ("hong2022/table7", ["did you mean 'hong2022/table"]),
        ("sweeps/quickstart.yaml", ["the bundled one is called quickstart"]),
        ("other.yaml", ["other.yaml: expected a readable YAML file"]),
    ],
)
@pytest.mark.parametrize("command", ["plan", "run"])
def test_what_is_neither_a_file_nor_a_name_starts_nothing(
    crwn: Crwn, workplace: Path, command: str, given: str, parts: list[str]
) -> None:
    """Exit code 2, and the nearest name."""
    ended = crwn(command, given)
    assert ended.code == 2
    for part in parts:
        assert part in ended.err
    assert list(workplace.iterdir()) == []


def test_an_unknown_name_cannot_be_copied(crwn: Crwn, workplace: Path) -> None:
    """The error has the nearest name."""
    ended = crwn("sweeps", "quickstrt")
    assert (ended.code, ended.codes) == (2, ("unknown-name",))
    assert all(name in ended.err for name in ("'quickstrt'", "'quickstart'"))
    assert list(workplace.iterdir()) == []


@pytest.mark.slow(reason="builds a wheel")
def test_a_wheel_has_the_sweeps(tmp_path: Path) -> None:
    """As the package finds them, each with the file's own bytes."""
    built = subprocess.run(
        [Path(sys.executable).with_name("uv"), "build", "--quiet", "--out-dir", tmp_path, ROOT],
        capture_output=True,
        text=True,
        check=False,
    )
    if "Failed to fetch" in built.stderr or "Failed to resolve" in built.stderr:
        pytest.skip(f"needs setuptools from a package index: {built.stderr.strip()}")
    assert built.returncode == 0, built.stderr
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        prefix = "orchestrator/sweeps/bundled/"
        found = {name.removeprefix(prefix): wheel.read(name) for name in wheel.namelist() if name.startswith(prefix)}
    folder = ROOT / "sweeps"
    assert found == {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.yaml")}
