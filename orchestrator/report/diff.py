"""Differences between the finished trials of two stores, trial by trial. Pure.

Two trials match if method and its settings, benchmark, scale and seed are equal; training settings may differ, and
are then reported. With equal settings and numerics on one machine, results are bitwise equal; with other numerics,
versions or machines they differ by rounding errors, which training amplifies: this is the noise, and its size is
stated.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from crwn.faults import InvalidError
from orchestrator.report import aggregate
from orchestrator.report.comparison import holm, paired
from orchestrator.store import compatibility

NOISE = 0.001
"""A tenth of a percentage point of accuracy, about the effect of another machine's rounding."""

SIGNIFICANT = 0.05
"""Of p values corrected by Holm's method."""

GROUP = ["method", "variant", "scale", "benchmark"]

_SETTINGS = [name for name in compatibility.APART if name not in compatibility.CODE]
_NOTED = [*(name for name in compatibility.NOTED if name not in compatibility.CODE), *compatibility.CODE]


@dataclass(frozen=True, slots=True, kw_only=True)
class Differences:
    """Differences between two sets of trials, A and B: B minus A.

    Attributes:
        trials: one row per trial that both have: method, variant, scale, benchmark, seed; trial_a, trial_b, their
            ids; accuracy_a, accuracy_b; difference; max_task, the difference of a single task with the largest
            magnitude; settings, what differs in `compatibility.APART`, except the code, whose effect is the question;
            noted, what differs in the code, in `NOTED`, and between a trial's own attempts;
            state: `same`, bitwise equal; `noise`, within the noise; `different`.
        cells: one row per method, variant, scale and benchmark, over seeds: n and the columns of
            `comparison.paired`, with p_holm and p_tasks_holm.
        only_a: trials that only A has: method, variant, scale, benchmark, seed, trial_id.
        only_b: likewise.
        noise: the tolerance.
    """

    trials: pd.DataFrame
    cells: pd.DataFrame
    only_a: pd.DataFrame
    only_b: pd.DataFrame
    noise: float

    @property
    def is_same(self) -> bool:
        """Whether both have the same trials, with equal settings, and accuracies within the noise."""
        return (
            not len(self.only_a)
            and not len(self.only_b)
            and not (self.trials["state"] == "different").any()
            and not (self.trials["settings"] != "").any()
        )


def differ(a: pd.DataFrame, b: pd.DataFrame, noise: float = NOISE) -> Differences:
    """Compare two sets of finished trials.

    Args:
        a: trials, as returned by `frames.trials_frame`.
        b: likewise.
        noise: accuracies, of a trial and of each of its tasks' means over seeds, that differ by no more count as
            the same, in [0, 1].

    Raises:
        InvalidError: a set has several trials of one method, benchmark, scale and seed that differ only in training.
    """
    left, right = (_by_key(frame, name) for frame, name in ((a, "A"), (b, "B")))
    common = [key for key in left if key in right]
    rows = [_trial(left[key], right[key], noise) for key in common]
    return Differences(
        trials=pd.DataFrame(rows, columns=_TRIAL_COLUMNS),
        cells=_cells([(left[key], right[key]) for key in common]),
        only_a=_only(left, right),
        only_b=_only(right, left),
        noise=noise,
    )


def with_other_contexts(found: Differences, trial_ids: Collection[str]) -> Differences:
    """The differences with those of contexts added.

    Args:
        found: the differences so far.
        trial_ids: the trials of A whose accuracies are bitwise equal but whose contexts are not.
    """
    trials = found.trials.copy()
    is_other = trials["trial_a"].isin(list(trial_ids))
    trials.loc[is_other, "state"] = "noise"
    trials.loc[is_other, "noted"] = [
        "; ".join(filter(None, (noted, "contexts differ"))) for noted in trials.loc[is_other, "noted"]
    ]
    return replace(found, trials=trials)


_TRIAL_COLUMNS = [
    *GROUP,
    *("seed", "trial_a", "trial_b", "accuracy_a", "accuracy_b", "difference", "max_task", "settings", "noted", "state"),
]


def _by_key(frame: pd.DataFrame, name: str) -> dict[tuple[str, int], dict[str, Any]]:
    found: dict[tuple[str, int], dict[str, Any]] = {}
    for row in aggregate.records(frame):
        settings = {part: value for part, value in json.loads(row["settings"]).items() if part != "training"}
        key = (json.dumps(settings, sort_keys=True), row["seed"])
        if key in found:
            apart = compatibility.mixture(
                [{**found[key], "seed": found[key]["trial_id"]}, {**row, "seed": row["trial_id"]}]
            )
            raise InvalidError(
                "several-trials-match",
                f"{name} has several trials of {_name(row)} at seed {row['seed']}: "
                f"{', '.join(apart) or 'with equal settings'} differ; select with --where",
            )
        found[key] = row
    return found


def _name(row: Mapping[str, Any]) -> str:
    return aggregate.cell_name(row)


def _trial(a: Mapping[str, Any], b: Mapping[str, Any], noise: float) -> dict[str, Any]:
    by_task = _tasks(b) - _tasks(a)
    difference = aggregate.number(b["accuracy"]) - aggregate.number(a["accuracy"])
    return {
        **{name: a[name] for name in GROUP},
        "seed": a["seed"],
        "trial_a": a["trial_id"],
        "trial_b": b["trial_id"],
        "accuracy_a": aggregate.number(a["accuracy"]),
        "accuracy_b": aggregate.number(b["accuracy"]),
        "difference": difference,
        "max_task": float(by_task[np.argmax(np.abs(by_task))]) if len(by_task) else np.nan,
        "settings": _between(a, b, _SETTINGS),
        "noted": "; ".join(filter(None, (_between(a, b, _NOTED), *_code_changes(a, b)))),
        "state": _state(difference, by_task, noise),
    }


def _tasks(row: Mapping[str, Any]) -> Any:
    return np.asarray(row["final"], dtype=float)


def _between(a: Mapping[str, Any], b: Mapping[str, Any], names: Sequence[str]) -> str:
    found = compatibility.differences([{**a, "seed": "A"}, {**b, "seed": "B"}], names)
    return "; ".join(f"{name} {' -> '.join(values)}" for name, values in found.items())


def _code_changes(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    """Which of two trials was computed by more than one code version, and how these differ."""
    sides = (("A", compatibility.code_changes(a)), ("B", compatibility.code_changes(b)))
    return [f"{name} was resumed with other code: {changes}" for name, changes in sides if changes]


def _state(difference: float, by_task: Any, noise: float) -> str:
    """The state of a trial; a NaN difference counts as different, never as the same."""
    if difference == 0 and not by_task.any():
        return "same"
    return "noise" if abs(difference) <= noise + 1e-12 and np.all(np.isfinite(by_task)) else "different"


def _cells(pairs: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]]) -> pd.DataFrame:
    """The differences over seeds and tasks; a trial with a NaN accuracy makes its cell's numbers NaN."""
    groups: dict[tuple[str, ...], list[tuple[Any, Any]]] = {}
    for a, b in pairs:
        key = (*(a[name] for name in GROUP), json.dumps(json.loads(a["settings"])["benchmark"]))
        groups.setdefault(key, []).append((_tasks(b), _tasks(a)))
    found = pd.DataFrame(
        [
            {
                **dict(zip(GROUP, key[:-1], strict=True)),
                **paired([own for own, _ in values], [base for _, base in values]),
            }
            for key, values in groups.items()
        ],
        columns=[*GROUP, *("n", "difference", "sd", "ci95", "p", "num_tasks", "tasks_above", "p_tasks")],
    )
    for name in ("p", "p_tasks"):
        found[f"{name}_holm"] = holm(found[name].to_numpy(dtype=float))
    return found


def _only(own: Mapping[Any, Mapping[str, Any]], other: Mapping[Any, Any]) -> pd.DataFrame:
    rows = [{name: row[name] for name in (*GROUP, "seed", "trial_id")} for key, row in own.items() if key not in other]
    return pd.DataFrame(rows, columns=[*GROUP, "seed", "trial_id"])


def as_json(found: Differences) -> str:
    """All differences, for programs; NaN becomes null."""
    parts = {name: getattr(found, name) for name in ("cells", "trials", "only_a", "only_b")}
    content = {name: json.loads(frame.to_json(orient="records", double_precision=15)) for name, frame in parts.items()}
    return json.dumps({"same": bool(found.is_same), "noise": found.noise, **content}, indent=1)


def lines(found: Differences) -> list[str]:
    """The differences as text, one line each, and a last line with a summary."""
    shown = []
    for row in aggregate.records(found.trials):
        because = "; ".join(filter(None, (row["settings"], row["noted"])))
        if row["state"] != "same" or row["settings"]:
            shown.append(
                f"{row['state']:9} {_name(row)}, seed {row['seed']}: {_percent(row['accuracy_a'])} -> "
                f"{_percent(row['accuracy_b'])} ({100 * row['difference']:+.2f}; a task by up to "
                f"{100 * row['max_task']:+.2f}){'; ' + because if because else ''}"
            )
    for row in aggregate.records(found.cells):
        if abs(row["difference"]) > 0 or np.isnan(row["difference"]):
            is_told = [
                name for name, p in (("seeds", row["p_holm"]), ("tasks", row["p_tasks_holm"])) if p < SIGNIFICANT
            ]
            told = f"significant over {' and '.join(is_told)}" if is_told else "not significant"
            shown.append(
                f"over seeds {_name(row)}: {100 * row['difference']:+.2f} ± {_deviation(row['sd'])} (n={row['n']}), "
                f"p {_p(row['p_holm'])} over seeds, {_p(row['p_tasks_holm'])} over tasks (Holm): {told}"
            )
    for name, frame in (("A", found.only_a), ("B", found.only_b)):
        shown += [f"only in {name} {_name(row)}, seed {row['seed']}" for row in aggregate.records(frame)]
    counts = {state: int((found.trials["state"] == state).sum()) for state in ("same", "noise", "different")}
    verdict = "the same within the noise" if found.is_same else "different"
    within = f"{counts['noise']} within {100 * found.noise:g} points"
    shown.append(
        f"{verdict}: {counts['same']} trials bit-identical, including contexts, {within}, "
        f"{counts['different']} beyond; {len(found.only_a)} only in A, {len(found.only_b)} only in B"
    )
    return shown


def _percent(value: float) -> str:
    return "not a number" if np.isnan(value) else f"{100 * value:.2f}"


def _deviation(value: float) -> str:
    return "-" if np.isnan(value) else f"{100 * value:.2f}"


def _p(value: float) -> str:
    return "-" if np.isnan(value) else f"{value:.2g}"
