"""Paths as users write them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from crwn import paths
from crwn.faults import InvalidError
from crwn.paths import expanded, stand_in_for_home
from tests.refusals import refused


def test_a_tilde_is_the_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only at the beginning; elsewhere, and after a dot, it is an ordinary character."""
    monkeypatch.setenv("HOME", "/home/me")
    assert expanded("~/runs/x") == Path("/home/me/runs/x")
    assert expanded("~") == Path("/home/me")
    assert expanded("runs/~") == Path("runs/~")
    assert str(expanded("./~/x")) == "~/x"
    assert str(expanded("./~/x").absolute()) == f"{Path.cwd()}/~/x"
    assert expanded("~root") == Path("~root").expanduser()
    assert expanded("") == Path()


def test_an_unknown_user_is_refused() -> None:
    """A folder called ~name is not created silently."""
    with refused(InvalidError, "no-home-folder", says="'~nobody-here/x'"):
        expanded("~nobody-here/x")


def test_without_a_home_libraries_get_one_and_paths_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow cannot be imported without one; results in a temporary home would be lost."""
    monkeypatch.setenv("HOME", "/home/me")
    stand_in_for_home()
    assert os.environ["HOME"] == "/home/me"

    def unknown() -> Path:
        raise RuntimeError

    with monkeypatch.context() as without:
        without.setattr(paths.Path, "home", unknown)
        stand_in_for_home()
    assert Path.home() == paths.NO_HOME
    with refused(InvalidError, "no-home-folder", says=["'~/x'", "HOME"]):
        expanded("~/x")
