"""Frozen backbones through an object store."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from crwn import backbone
from crwn.backbone import Arrays, BackboneSpec
from crwn.trial_spec import TrialSpec
from orchestrator.execution.backbones import SharedBackbones

Trial = Callable[..., TrialSpec]


class FakeObjectStore:
    """Stores what is put, and returns its number as a reference."""

    def __init__(self) -> None:
        self.kept: list[Arrays] = []

    def put(self, arrays: Arrays) -> int:
        self.kept.append(arrays)
        return len(self.kept) - 1


@pytest.fixture
def objects() -> FakeObjectStore:
    return FakeObjectStore()


def spec_of(trial: TrialSpec) -> BackboneSpec:
    """The backbone that a trial reads; a new object each time."""
    return trial.blueprint().backbone


def test_a_backbone_is_put_once(objects: FakeObjectStore, trial: Trial) -> None:
    """Trials that differ in how they train share one copy; another seed has another."""
    shared = SharedBackbones(objects.put)
    first = shared.get(spec_of(trial(0)))
    assert shared.get(spec_of(trial(0, modulation="local", num_tasks=3))) == first
    assert len(objects.kept) == 1
    assert shared.get(spec_of(trial(1))) != first
    assert len(objects.kept) == 2


def test_what_is_put_is_what_is_drawn(objects: FakeObjectStore, trial: Trial) -> None:
    """The arrays have the fingerprint that goes with them."""
    spec = spec_of(trial(0))
    shared = SharedBackbones(objects.put).get(spec)
    assert shared.fingerprint == backbone.draw(spec).fingerprint
    assert backbone.fingerprint(objects.kept[shared.reference]) == shared.fingerprint


def test_a_method_without_a_backbone_shares_nothing(objects: FakeObjectStore, trial: Trial) -> None:
    """STL reads no drawn arrays: what is put is empty, has a fingerprint, and costs nothing."""
    spec = spec_of(trial(0, kind="stl"))
    shared = SharedBackbones(objects.put).get(spec)
    assert (objects.kept, shared.fingerprint) == ([{}], backbone.draw(spec).fingerprint)
    assert spec.num_bytes == 0


def test_backbones_that_are_needed_no_more_are_let_go(objects: FakeObjectStore, trial: Trial) -> None:
    """Those that stay keep their reference; one that was let go is drawn and put again when it is asked for."""
    shared = SharedBackbones(objects.put)
    specs = [spec_of(trial(seed)) for seed in range(3)]
    references = [shared.get(spec).reference for spec in specs]
    assert references == [0, 1, 2]
    shared.keep_only(iter([spec_of(trial(1)), spec_of(trial(7))]))
    assert shared.get(specs[1]).reference == 1
    assert len(objects.kept) == 3
    assert shared.get(specs[0]).reference == 3
