"""A paper's claims, each with its verdict and evidence: pure functions over the store's rows.

A claim is a list of comparisons between rows of the paper (`orchestrator.papers.paper`). It is open while any of those
rows has not run or has incompatible trials; otherwise it is confirmed if every comparison holds, and refuted if one
does not. Differences are paired by seed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import pandas as pd

from orchestrator.measures import MEASURES
from orchestrator.papers.paper import (
    SPREAD,
    Bound,
    Check,
    Claim,
    Comparison,
    Direction,
    Paper,
    Row,
    Selectivity,
    TaskComparison,
    Trend,
)
from orchestrator.report import aggregate
from orchestrator.store import compatibility

Word: TypeAlias = Literal["confirmed", "refuted", "open"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """One comparison of a claim.

    Attributes:
        statement: the comparison in words, with its numbers.
        holds: whether the comparison holds as claimed.
        n: the number of seeds that both sides have.
        trials: the trials behind the numbers.
    """

    statement: str
    holds: bool
    n: int
    trials: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The verdict on one claim.

    Attributes:
        number: its number in the list of the paper's claims.
        claim: the claim in words.
        word: the verdict.
        evidence: the comparisons that could be made.
        missing: the rows that have not run or cannot be compared, and why.
    """

    number: int
    claim: str
    word: Word
    evidence: tuple[Evidence, ...]
    missing: tuple[str, ...]


class Rows:
    """The finished trials, by the row of the paper's tables they belong to.

    Args:
        trials: trials of any stores, as returned by `frames.trials_frame`.
    """

    def __init__(self, trials: pd.DataFrame) -> None:
        self._by_settings: dict[str, list[Mapping[str, Any]]] = {}
        self._marked: set[str] = set()
        for record in aggregate.records(trials):
            self._by_settings.setdefault(record["settings"], []).append(record)
            if compatibility.code_changes(record):
                self._marked.add(record["trial_id"])

    def records(self, row: Row) -> list[Mapping[str, Any]]:
        """The row's trials; a trial that two stores have with the same result counts once."""
        return compatibility.once(self._by_settings.get(row.settings, []))

    def of(self, row: Row) -> pd.DataFrame:
        """The row's trials by seed."""
        return pd.DataFrame(self.records(row)).set_index("seed").sort_index()

    def by_task(self, row: Row) -> pd.DataFrame:
        """Accuracy after the last task, in [0, 1]: one row per seed, one column per task."""
        return pd.DataFrame({record["seed"]: list(record["final"]) for record in self.records(row)}).T.sort_index()

    def values(self, row: Row, quantity: str) -> pd.Series:
        """A quantity of the row's trials by seed; NaN if a trial lacks it."""
        if quantity == SPREAD:
            return self.by_task(row).std(axis=1, ddof=1)
        trials = self.of(row)
        return trials[quantity].astype(float) if quantity in trials else pd.Series(np.nan, index=trials.index)

    def ids(self, row: Row) -> pd.Series:
        """The ids of the row's trials by seed."""
        return self.of(row)["trial_id"]

    def note(self, trials: Iterable[str]) -> str:
        """A note for statements about trials: how many of them were computed by more than one code version."""
        count = len(self._marked.intersection(trials))
        return f" ({count} of the trials computed by several code versions)" if count else ""

    def lacking(self, rows: Sequence[Row]) -> list[str]:
        """The rows without trials, and those whose trials are incompatible, by themselves or with each other."""
        absent = [str(row) for row in rows if not self.records(row)]
        apart = [name for name in compatibility.APART if name != "settings"]  # which rows differ in by design
        together = [record for row in rows for record in self.records(row)]
        repeated = [f"{row}: {text}" for row in rows if (text := compatibility.show_repeated(self.records(row)))]
        mixed = compatibility.show_mixture(compatibility.mixture(together, apart))
        return absent + repeated + ([f"{' and '.join(map(str, rows))}, which should match: {mixed}"] if mixed else [])


def _compare(check: Check, rows: Rows) -> Evidence:
    """The evidence for one comparison."""
    match check:
        case Comparison():
            # Costs are stated as they are; fractions as differences, unless the claim requires a multiple.
            is_difference = check.by > 0 or (check.times is None and _Unit(check.quantity).is_in_percent)
            return _difference(check, rows) if is_difference or check.surely else _means(check, rows)
        case Selectivity():
            return _selectivity(check, rows)
        case TaskComparison():
            return _by_task(check, rows)
        case Bound():
            return _bound(check, rows)
        case Trend():
            return _trend(check, rows)


class _Unit:
    """How to display values of a quantity.

    Args:
        quantity: one of `paper.QUANTITIES`.
    """

    def __init__(self, quantity: str) -> None:
        measure = MEASURES.get(quantity)
        self.is_in_percent = measure is None or measure.is_in_percent
        self.called = "standard deviation over tasks" if measure is None else measure.in_words
        self.factor = 100 if self.is_in_percent else 1
        self.name = " points" if self.is_in_percent else ""


def _difference(check: Comparison, rows: Rows) -> Evidence:
    """The rows' difference, paired by seed: any in the claim's direction, or at least a given margin."""
    difference = (rows.values(check.row, check.quantity) - rows.values(check.than, check.quantity)).dropna()
    unit, seeds = _Unit(check.quantity), difference.index
    of = "" if check.quantity == "accuracy" else f"{unit.called} of "
    shown, holds = _judged(difference, unit, check.direction, check.by, surely=check.surely)
    return Evidence(
        statement=f"{of}{check.row} against {check.than}: {shown}",
        holds=holds,
        n=len(seeds),
        trials=(*rows.ids(check.row)[seeds], *rows.ids(check.than)[seeds]),
    )


def _selectivity(check: Selectivity, rows: Rows) -> Evidence:
    """The difference between the mean accuracies on some tasks and on others."""
    by_task = rows.by_task(check.row).astype(float)
    own, other = (
        by_task[[task - 1 if task > 0 else by_task.shape[1] + task for task in tasks]].mean(axis=1)
        for tasks in (check.tasks, check.others)
    )
    shown, holds = _judged((own - other).dropna(), _Unit("accuracy"), check.direction, check.by, surely=check.surely)
    tasks, others = (", ".join(map(str, tasks)) for tasks in (check.tasks, check.others))
    return Evidence(
        statement=f"{check.row}, tasks {tasks} against {others}: {shown}",
        holds=holds,
        n=len((own - other).dropna()),
        trials=tuple(rows.ids(check.row)),
    )


def _judged(difference: pd.Series, unit: _Unit, direction: Direction, by: float, *, surely: bool) -> tuple[str, bool]:
    """A paired difference by seed in words, and whether it has a direction, by at least a margin."""
    sign = 1 if direction == "higher" else -1
    mean, sd, width = aggregate.mean_and_spread(difference.to_numpy(dtype=float))
    deviation = f" ± {unit.factor * sd:.2f}" if len(difference) > 1 else ""
    asked = f", {_bounded(direction)} {sign * unit.factor * by:.6g} required" if by else ""
    least = sign * mean - width if surely else sign * mean  # NaN for one seed: nothing is certain
    shown = f"{unit.factor * mean:+.2f}{deviation}{unit.name}{asked}{_interval(mean, width, unit, signed=True)}"
    return shown, bool(least >= by if by and not surely else least > by)


def _interval(mean: float, width: float, unit: _Unit, *, signed: bool = False) -> str:
    """The 95 % interval of a mean in words; empty if there is none, or no deviation."""
    if not width > 0:
        return ""
    low, high = (f"{unit.factor * end:{'+' if signed else ''}.2f}" for end in (mean - width, mean + width))
    return f" (95 % interval {low} to {high})"


def _means(check: Comparison, rows: Rows) -> Evidence:
    """The rows' means, each over its own seeds: one above or below the other, or a given multiple of the other."""
    own, other = (rows.values(row, check.quantity) for row in check.rows)
    mine, theirs, unit = float(own.mean()), float(other.mean()), _Unit(check.quantity)
    sign, times = (1 if check.direction == "higher" else -1), (1.0 if check.times is None else check.times)
    ahead = sign * (mine - times * theirs)
    if unit.is_in_percent:
        shown = f"{unit.called}: {check.row} {100 * mine:.2f} points, {check.than} {100 * theirs:.2f}"
    else:
        shown = f"{check.row}: {mine:,.6g} {unit.called}; {check.than}: {theirs:,.6g}"
    if check.times is not None:
        as_much = "times as much" if check.direction == "higher" else "of them"
        shown += f", {_bounded(check.direction)} {times:g} {as_much} required"
    return Evidence(
        statement=shown,
        holds=ahead > 0 if check.times is None else ahead >= 0,
        n=0 if np.isnan(mine) or np.isnan(theirs) else min(len(own), len(other)),
        trials=tuple(trial for row in check.rows for trial in rows.ids(row)),
    )


def _bounded(direction: str) -> str:
    return "at least" if direction == "higher" else "at most"


def _by_task(check: TaskComparison, rows: Rows) -> Evidence:
    """The rows' difference on each of some tasks."""
    a, b = rows.by_task(check.row), rows.by_task(check.than)
    seeds, num_tasks = a.index.intersection(b.index), a.shape[1]
    gains = {}
    for task in check.tasks:
        place = task - 1 if task > 0 else num_tasks + task
        gains[place + 1] = float((a.loc[seeds, place] - b.loc[seeds, place]).mean())
    shown = ", ".join(f"task {task} {100 * gain:+.2f}" for task, gain in gains.items())
    sign, means = (1 if check.direction == "higher" else -1), np.array(list(gains.values()))
    return Evidence(
        statement=f"{check.row} against {check.than}: {shown} points",
        holds=bool(np.all(sign * means > 0)),
        n=0 if np.isnan(means).any() else len(seeds),
        trials=(*rows.ids(check.row)[seeds], *rows.ids(check.than)[seeds]),
    )


def _bound(check: Bound, rows: Rows) -> Evidence:
    """A row's quantity against a bound."""
    values, unit = rows.values(check.row, check.quantity), _Unit(check.quantity)
    if check.relation == "equal":
        away = f" away from {unit.factor * check.to:g}" if check.to else ""
        shown = f"{unit.factor * (values - check.to).abs().max():.3g}{unit.name}{away} at most"
        holds = bool((values == check.to).all())
    else:
        mean, bound = unit.factor * values.mean(), unit.factor * check.to
        interval = _interval(float(values.mean()), aggregate.mean_and_spread(values.to_numpy(dtype=float))[2], unit)
        shown = f"{mean:,.6g}{unit.name}{interval}, {_bounded(check.relation)} {bound:,.6g} required"
        holds = bool(values.mean() >= check.to if check.relation == "higher" else values.mean() <= check.to)
    return Evidence(
        statement=f"{check.row}: {unit.called} {shown}",
        holds=holds,
        n=int(values.notna().all()) * len(values),
        trials=tuple(rows.ids(check.row)),
    )


def _trend(check: Trend, rows: Rows) -> Evidence:
    """How the gain of rows over others changes from pair to pair."""
    pairs = [(rows.values(left, check.quantity) - rows.values(right, check.quantity)) for left, right in check.gains]
    differences = [difference.dropna() for difference in pairs]
    means, unit = [float(difference.mean()) for difference in differences], _Unit(check.quantity)
    firsts = [left for left, _ in check.gains]
    is_one = len({(row.label, row.benchmark) for row in firsts}) == 1
    what = "" if check.quantity == "accuracy" else f" in {unit.called}"
    shown = ", ".join(
        f"{row.scale if is_one else row} {unit.factor * mean:+.2f}" for row, mean in zip(firsts, means, strict=True)
    )
    steps = np.diff(means)
    return Evidence(
        statement=f"gain{what}{f' of {firsts[0].label}' if is_one else ''}: {shown}{unit.name}",
        holds=bool(np.all(steps < 0 if check.direction == "falling" else steps > 0)),
        n=min(map(len, differences)),
        trials=tuple(trial for row in check.rows for trial in rows.ids(row)),
    )


def verdicts(paper: Paper, trials: pd.DataFrame) -> list[Verdict]:
    """The verdicts on a paper's claims, from the finished trials.

    Args:
        paper: the paper.
        trials: trials of any stores, as returned by `frames.trials_frame`.
    """
    rows = Rows(trials)
    return [_verdict(number, claim, rows) for number, claim in enumerate(paper.claims, start=1)]


def _verdict(number: int, claim: Claim, rows: Rows) -> Verdict:
    missing: dict[str, None] = {}
    evidence = []
    for check in claim.checks:
        if lacking := rows.lacking(check.rows):
            missing |= dict.fromkeys(lacking)
            continue
        found = _compare(check, rows)
        if found.n:
            evidence.append(dataclasses.replace(found, statement=found.statement + rows.note(found.trials)))
        else:
            missing[f"{' and '.join(map(str, check.rows))}, with numbers at a common seed"] = None
    if missing:
        word: Word = "open"
    else:
        word = "confirmed" if all(found.holds for found in evidence) else "refuted"
    return Verdict(number=number, claim=claim.says, word=word, evidence=tuple(evidence), missing=tuple(missing))


def as_frame(found: Iterable[Verdict]) -> pd.DataFrame:
    """Verdicts as rows: number, claim, verdict, comparison, holds, n, trials; nulls if there is no comparison."""
    return pd.DataFrame(
        [
            {"number": verdict.number, "claim": verdict.claim, "verdict": verdict.word, **given}
            for verdict in found
            for given in [dataclasses.asdict(evidence) for evidence in verdict.evidence] or [{}]
        ]
    )
