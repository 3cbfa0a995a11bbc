"""Trials that tests give names to: eight seeds of one cell, in the order of their ids, and what each leaves."""

from __future__ import annotations

from crwn.testing import DEFAULT, Accuracy, Conditions, finished_record, tiny_trial
from orchestrator.store import TrialRecord

SPECS = {
    spec.trial_id: spec for spec in sorted((tiny_trial(seed=seed) for seed in range(8)), key=lambda spec: spec.trial_id)
}
A, B, C, D, E, F, G, H = SPECS


def record(trial_id: str, accuracy: Accuracy = 0.5, conditions: Conditions = DEFAULT) -> TrialRecord:
    """What one of them leaves when it is finished: two tasks, three tests, two samples."""
    return finished_record(SPECS[trial_id], accuracy, conditions)
