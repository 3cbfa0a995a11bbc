"""Modules that are imported when first used."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from crwn.lazy import LazyModule


def test_a_module_is_imported_at_the_first_access(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Creating a lazy module runs nothing; reading an attribute imports the module and returns the attribute."""
    (tmp_path / "seldom_used.py").write_text("answer = 42\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    module = LazyModule("seldom_used")
    assert "seldom_used" not in sys.modules
    assert module.answer == 42
    assert "seldom_used" in sys.modules
    assert "answer" in vars(module)  # no look-up of the module at the next access
    monkeypatch.delitem(sys.modules, "seldom_used")


def test_a_missing_attribute_is_an_attribute_error() -> None:
    """A misspelt name fails as it does with a plain import."""
    with pytest.raises(AttributeError, match="'no_such_name'"):
        _ = LazyModule("json").no_such_name
