"""What differs between two sets of trials: trial by trial, over seeds and tasks, for people and for programs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from crwn.faults import InvalidError
from crwn.testing import new_store, tiny_trial, write_finished
from orchestrator.report.diff import as_json, differ, lines, with_other_contexts
from orchestrator.store.store import Store
from tests.refusals import refused
from tests.said import only_in


def frame(finals: dict[int, list[float]], *, rate: float = 0.01, method: str = "psp", **changes: Any) -> pd.DataFrame:
    """Finished trials: the accuracies of their tasks by seed."""
    settings = {"method": {"kind": method}, "benchmark": {"kind": "r"}, "training": {"learning_rate": rate}}
    names = {"method": method, "variant": "", "scale": "FC16", "benchmark": "r"}
    return pd.DataFrame(
        {
            **names,
            "seed": seed,
            "trial_id": f"{method}{rate}/{seed}",
            "accuracy": float(np.mean(final)),
            "final": np.array(final),
            "settings": json.dumps(settings),
            "versions.torch": "2.15.0",
            "numerics.kernel": "torch",
            **changes,
        }
        for seed, final in finals.items()
    )


BEFORE = {0: [0.9, 0.8], 1: [0.85, 0.75], 2: [0.8, 0.9]}


def test_equal_trials_are_the_same_to_the_last_bit() -> None:
    """Nothing is told but that."""
    found = differ(frame(BEFORE), frame(BEFORE))
    assert found.is_same
    assert set(found.trials["state"]) == {"same"}
    (line,) = lines(found)
    assert line.startswith(
        "the same within the noise: 3 trials bit-identical, including contexts, 0 within 0.1 points, 0 beyond;"
    )


@pytest.mark.parametrize(("shift", "state"), [(0.0009, "noise"), (0.001, "noise"), (0.0012, "different")])
def test_the_noise_is_where_it_is_said_to_be(shift: float, state: str) -> None:
    """A tenth of a point of a trial's accuracy, this included."""
    found = differ(frame({0: [0.5, 0.5]}), frame({0: [0.5 + shift, 0.5 + shift]}))
    assert found.trials["state"].tolist() == [state]
    assert found.is_same == (state == "noise")
    assert differ(frame({0: [0.5, 0.5]}), frame({0: [0.51, 0.51]}), noise=0.02).is_same


def test_differences_over_seeds_and_tasks_are_those_of_other_libraries() -> None:
    """B less A, paired by seed, as scipy has it; the largest of a task's by size."""
    after = {0: [0.95, 0.82], 1: [0.86, 0.8], 2: [0.83, 0.88]}
    found = differ(frame(BEFORE), frame(after))
    differences = np.array([after[seed] for seed in after]) - np.array([BEFORE[seed] for seed in BEFORE])
    (cell,) = found.cells.to_dict("records")
    assert cell["difference"] == pytest.approx(differences.mean())
    assert cell["p"] == pytest.approx(stats.ttest_1samp(differences.mean(axis=1), 0).pvalue)
    assert found.trials["max_task"].tolist() == pytest.approx([0.05, 0.05, 0.03])
    assert lines(found)[0].startswith("different psp FC16 on r, seed 0: 85.00 -> 88.50 (+3.50; a task by up to +5.00)")
    assert lines(found)[3].startswith("over seeds psp FC16 on r: +")


def test_what_else_differs_is_told() -> None:
    """Training settings make trials different even with equal accuracies; versions and numerics are also shown."""
    changed = frame(BEFORE, rate=0.02, **{"versions.torch": "2.16.0"})
    found = differ(frame(BEFORE), changed)
    assert not found.is_same
    assert found.trials["settings"].tolist() == ["training.learning_rate 0.01 -> 0.02"] * 3
    assert found.trials["noted"].tolist() == ["versions.torch 2.15.0 -> 2.16.0"] * 3
    assert f"{found.trials['settings'][0]}; {found.trials['noted'][0]}" in lines(found)[0]
    assert differ(frame(BEFORE), frame(BEFORE, **{"versions.torch": "2.16.0"})).is_same


def test_code_that_changed_within_a_trial_is_told() -> None:
    """On either side, in addition to differences; by itself, it is no difference."""
    finals = {0: [0.5, 0.75]}
    found = differ(frame(finals), frame({0: [0.75, 0.75]}, code_changes="torch 1 -> 2", **{"code.method": "1a"}))
    assert found.trials["noted"].tolist() == ["B was resumed with other code: torch 1 -> 2"]
    (noted,) = set(found.trials["noted"])
    assert f"; {noted}" in lines(found)[0]
    assert noted in as_json(found)
    assert differ(frame(finals, code_changes=""), frame(finals, code_changes="torch 1 -> 2")).is_same
    between = differ(frame(finals, **{"code.method": "0a"}), frame(finals, **{"code.method": "1a"}))
    assert between.trials["noted"].tolist() == ["code.method 0a -> 1a"]


def test_trials_that_one_side_lacks_are_named() -> None:
    """Stores with different trials are not equal."""
    found = differ(frame(BEFORE), frame({0: BEFORE[0], 5: [0.1, 0.1]}))
    assert not found.is_same
    assert found.only_a["seed"].tolist() == [1, 2]
    assert found.only_b["seed"].tolist() == [5]
    assert only_in("B", "psp FC16 on r, seed 5") in lines(found)


def test_an_accuracy_that_is_no_number_is_different() -> None:
    """NaN differs from every accuracy, even from NaN."""
    diverged = frame({0: [np.nan, 0.5]})
    for other in (frame({0: [0.5, 0.5]}), diverged):
        found = differ(other, diverged)
        assert found.trials["state"].tolist() == ["different"]
        assert "not a number" in lines(found)[0]
        assert json.loads(as_json(found))["trials"][0]["accuracy_b"] is None


def test_several_trials_that_match_one_are_refused() -> None:
    """They differ in training alone, which is said."""
    two = pd.concat([frame(BEFORE), frame(BEFORE, rate=0.5)])
    facts = ["B ", " psp FC16 on r ", " 0: ", "training.learning_rate", "--where"]
    with refused(InvalidError, "several-trials-match", says=facts):
        differ(frame(BEFORE), two)


def test_the_commands_codes(tmp_path: Path, crwn: Callable[..., Any]) -> None:
    """0 the same, 1 different, 2 where there is nothing to compare; JSON for programs."""
    stores = [new_store(tmp_path / name) for name in "abc"]
    for store, accuracy in zip(stores, (0.5, 0.5, 0.75), strict=True):
        write_finished(store, tiny_trial(), accuracy)
    a, b, c = (store.address for store in stores)
    same, changed = crwn("diff", a, b), crwn("diff", a, c, "--json")
    assert (same.code, changed.code) == (0, 1)
    assert same.out.startswith("the same within the noise: 1 trials")
    content = json.loads(changed.out)
    assert (content["same"], content["trials"][0]["difference"], content["noise"]) == (False, 0.25, 0.001)
    assert crwn("diff", a, c, "--noise", "25").code == 0
    assert crwn("diff", a, c, "--where", "scale=FC17").code == 2
    assert crwn("diff", a, str(tmp_path / "none")).code == 2
    empty = Store(tmp_path / "empty")
    empty.create()
    refused = crwn("diff", a, empty.address)
    assert refused.code == 2
    assert "expected at least one finished trial to compare, found none" in refused.err


def test_other_contexts_are_no_equal_trials() -> None:
    """Equal accuracies alone are not equality to the last bit."""
    found = differ(frame(BEFORE), frame(BEFORE))
    other = with_other_contexts(found, [found.trials["trial_a"].iloc[0]])
    assert other.is_same
    assert other.trials["state"].tolist() == ["noise", *["same"] * (len(BEFORE) - 1)]
    assert "contexts differ" in lines(other)[0]
