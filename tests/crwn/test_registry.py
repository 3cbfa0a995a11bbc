"""Registries: built-in names, and those that are added."""

from __future__ import annotations

import pytest

from crwn.faults import InvalidError
from crwn.registry import Registry
from tests.refusals import refused


def test_what_is_added_stands_beside_what_is_built_in() -> None:
    """With its provider, in order, and until it is removed; what is built in has none."""
    registry = Registry("letter", {"a": 1})
    registry.add({"b": 2}, "somebody")
    assert dict(registry) == {"a": 1, "b": 2}
    assert (registry.provider("a"), registry.provider("b")) == (None, "somebody")
    registry.remove(["b"])
    assert (dict(registry), registry.provider("b")) == ({"a": 1}, None)
    assert registry.built_in == {"a": 1}


def test_a_taken_name_is_refused_and_nothing_is_added() -> None:
    """Built-in and added names cannot be replaced."""
    registry = Registry("letter", {"a": 1})
    with refused(InvalidError, "name-taken", says=["letter", " a,"]):
        registry.add({"b": 2, "a": 3})
    assert dict(registry) == {"a": 1}


def test_what_is_added_for_a_while_is_gone_afterwards() -> None:
    """Also after an error."""
    registry = Registry("letter", {"a": 1})
    with registry.adding({"b": 2}):
        assert registry["b"] == 2
    assert dict(registry) == {"a": 1}
    with pytest.raises(KeyError), registry.adding({"b": 2}):
        registry["c"]
    assert dict(registry) == {"a": 1}
