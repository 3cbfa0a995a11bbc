"""Provenance: reading returns what was written, and older records say less."""

from __future__ import annotations

import dataclasses

from crwn.testing import finished_record, tiny_trial
from orchestrator.store.attempts import (
    Attempt,
    Position,
)
from orchestrator.store.provenance import Provenance, RecordedNumerics


def test_a_finished_trial_keeps_its_attempts_without_their_spec() -> None:
    """It has that once."""
    attempt = Attempt(host="here", spec=finished_record(tiny_trial()).trial.spec, grouping="any", began_at=Position())
    kept = Provenance(attempts=(attempt.without_spec,), versions={"torch": "2.11.0"})
    assert Provenance.from_json(kept.to_json()) == kept
    assert "spec" not in kept.to_json()
    assert Provenance.from_json(kept.to_json(), with_attempts=False) == dataclasses.replace(kept, attempts=())


def test_what_an_older_record_does_not_say_is_none() -> None:
    """And no fault; nor is a key that a newer one has."""
    assert Provenance.from_json(None) == Provenance.from_json('{"of a newer crwn": [1]}') == Provenance()
    assert RecordedNumerics.from_json("{}") == RecordedNumerics()
