"""The paper's claims, each with its verdict and the numbers behind it: pure functions over the store's rows.

A claim is a list of comparisons between named rows of the paper's tables (Hong & Pavlic, arXiv:2204.04297). It is open
while one of those rows has not run, or its trials are not of one kind; otherwise it is confirmed where every comparison
holds, and refuted where one does not. Differences are paired by seed. What the paper leaves to the reader ("far
fewer", "markedly worse") has a number here, which is part of the claim.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import numpy as np
import pandas as pd

from orchestrator.report import aggregate
from orchestrator.report.paper import paper_spec, settings_text
from orchestrator.store import compatibility

Word: TypeAlias = Literal["confirmed", "refuted", "open"]

FAR_FEWER = 0.1
"""Of the other's parameters a task, at most."""
MARKEDLY = 0.05
"""Accuracy that is lost, at least; in [0, 1]."""
UNEVEN = 2.0
"""Times the standard deviation over tasks of the other's, at least."""
POORLY = 0.2
"""Accuracy that is lost, at least."""

WIDTHS = ("FC256", "FC512", "FC1024", "FC2048", "FC4096")
FLIES = ("10d", "20d", "30d", "40d")
MAPS = ("1d", "2d", "4d", "6d")


@dataclass(frozen=True)
class Row:
    """A row of the paper's tables on one benchmark, at the paper's settings.

    Attributes:
        method: its kind.
        scale: of the network.
        benchmark: a preset's name.
        settings: what differs from the method's defaults.
    """

    method: str
    scale: str
    benchmark: str
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        changes = " ".join("pretrained" if value is True else str(value) for value in self.settings.values())
        return " ".join(part for part in (self.method, changes, self.scale, f"on {self.benchmark}") if part)

    @property
    def key(self) -> str:
        """What its trials' column `settings` says."""
        return settings_text(paper_spec(self.method, self.settings, self.scale, self.benchmark))


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """One comparison of a claim.

    Attributes:
        statement: what is compared, in words with the numbers.
        holds: whether it is as the claim says.
        n: seeds that both sides have.
        trials: that the numbers are of.
    """

    statement: str
    holds: bool
    n: int
    trials: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What was found of one claim.

    Attributes:
        number: in the list of the paper's claims.
        claim: in words.
        word: the verdict.
        evidence: the comparisons that could be made.
        missing: the rows that have not run, or cannot be compared, and why.
    """

    number: int
    claim: str
    word: Word
    evidence: tuple[Evidence, ...]
    missing: tuple[str, ...]


class Rows:
    """The trials that are there, by the row of the paper's tables that they belong to.

    Args:
        trials: of any stores, as `frames.trials_frame` gives them.
    """

    def __init__(self, trials: pd.DataFrame) -> None:
        self._by_settings: dict[str, list[Mapping[str, Any]]] = {}
        self._marked: set[str] = set()
        for record in aggregate.records(trials):
            self._by_settings.setdefault(record["settings"], []).append(record)
            if compatibility.code_changes(record):
                self._marked.add(record["trial_id"])

    def records(self, row: Row) -> list[Mapping[str, Any]]:
        """The row's trials; one that two stores have with the same result counts once."""
        return compatibility.once(self._by_settings.get(row.key, []))

    def of(self, row: Row) -> pd.DataFrame:
        """The row's trials by seed."""
        return pd.DataFrame(self.records(row)).set_index("seed").sort_index()

    def by_task(self, row: Row) -> pd.DataFrame:
        """Accuracy after the last task, in [0, 1]: a line a seed, a column a task."""
        return pd.DataFrame({record["seed"]: list(record["final"]) for record in self.records(row)}).T.sort_index()

    def note(self, trials: Iterable[str]) -> str:
        """What a statement about trials has to add: how many of them were computed under more than one code."""
        count = len(self._marked.intersection(trials))
        return f" ({count} of the trials computed under more than one code)" if count else ""

    def lacking(self, rows: Sequence[Row]) -> list[str]:
        """The rows without trials, and those whose trials, or whose trials together, are not of one kind."""
        absent = [str(row) for row in rows if not self.records(row)]
        apart = [name for name in compatibility.APART if name != "settings"]  # which rows differ in by design
        together = [record for row in rows for record in self.records(row)]
        repeated = [f"{row}: {text}" for row in rows if (text := compatibility.show_repeated(self.records(row)))]
        mixed = compatibility.show_mixture(compatibility.mixture(together, apart))
        return absent + repeated + ([f"{' and '.join(map(str, rows))}, of one kind: {mixed}"] if mixed else [])


Comparison: TypeAlias = "Callable[[Rows], Evidence]"


@dataclass(frozen=True)
class _Check:
    """A comparison and the rows that it needs."""

    rows: tuple[Row, ...]
    compare: Comparison


def _points(values: pd.Series) -> str:
    """A mean difference in points, with its deviation where there is one."""
    deviation = f" ± {100 * values.std(ddof=1):.2f}" if len(values) > 1 else ""
    return f"{100 * values.mean():+.2f}{deviation} points"


def better(left: Row, right: Row, by: float = 0.0) -> _Check:
    """The left row's accuracy is higher than the right one's, by at least so much."""

    def compare(rows: Rows) -> Evidence:
        a, b = rows.of(left), rows.of(right)
        difference = (a["accuracy"].astype(float) - b["accuracy"].astype(float)).dropna()
        seeds = difference.index
        wanted = f", at least {100 * by:.0f} asked for" if by else ""
        return Evidence(
            statement=f"{left} against {right}: {_points(difference)}{wanted}",
            holds=bool(difference.mean() >= by if by else difference.mean() > 0),
            n=len(seeds),
            trials=(*a.loc[seeds, "trial_id"], *b.loc[seeds, "trial_id"]),
        )

    return _Check((left, right), compare)


def cheaper(left: Row, right: Row, cost: str, by: float = 1.0) -> _Check:
    """The left row costs less than the right one, or at most so large a share of it."""
    label = {"params_per_task": "parameters a task", "train_seconds_per_task": "training seconds a task"}[cost]

    def compare(rows: Rows) -> Evidence:
        a, b = rows.of(left), rows.of(right)
        mine, theirs = float(a[cost].mean()), float(b[cost].mean())
        wanted = f", at most {by:g} of them asked for" if by != 1 else ""
        return Evidence(
            statement=f"{left}: {mine:,.6g} {label}; {right}: {theirs:,.6g}{wanted}",
            holds=mine < theirs if by == 1 else mine <= by * theirs,
            n=0 if np.isnan(mine) or np.isnan(theirs) else min(len(a), len(b)),
            trials=(*a["trial_id"], *b["trial_id"]),
        )

    return _Check((left, right), compare)


def _uneven(left: Row, right: Row) -> _Check:
    """Accuracy differs more between the tasks of the left row than between those of the right one."""

    def compare(rows: Rows) -> Evidence:
        mine, theirs = (float(rows.by_task(row).std(axis=1, ddof=1).mean()) for row in (left, right))
        return Evidence(
            statement=f"standard deviation over tasks: {left} {100 * mine:.2f} points, {right} {100 * theirs:.2f}, "
            f"at least {UNEVEN:g} times as much asked for",
            holds=mine >= UNEVEN * theirs,
            n=0 if np.isnan(mine) or np.isnan(theirs) else min(len(rows.of(left)), len(rows.of(right))),
            trials=(*rows.of(left)["trial_id"], *rows.of(right)["trial_id"]),
        )

    return _Check((left, right), compare)


def _first_tasks(left: Row, right: Row, number: int) -> _Check:
    """On each of the first tasks the left row's accuracy is higher."""

    def compare(rows: Rows) -> Evidence:
        a, b = rows.by_task(left), rows.by_task(right)
        seeds = a.index.intersection(b.index)
        gains = (a.loc[seeds] - b.loc[seeds]).iloc[:, :number].mean()
        shown = ", ".join(f"task {task + 1} {100 * gain:+.2f}" for task, gain in enumerate(gains))
        return Evidence(
            statement=f"{left} against {right}: {shown} points",
            holds=bool((gains > 0).all()),
            n=0 if gains.isna().any() else len(seeds),
            trials=(*rows.of(left).loc[seeds, "trial_id"], *rows.of(right).loc[seeds, "trial_id"]),
        )

    return _Check((left, right), compare)


def _shrinking(gains: Sequence[tuple[Row, Row]]) -> _Check:
    """The gain of the left rows over the right ones becomes smaller from pair to pair."""

    def compare(rows: Rows) -> Evidence:
        means, seeds = [], []
        for left, right in gains:
            difference = (rows.of(left)["accuracy"] - rows.of(right)["accuracy"]).dropna()
            means.append(float(difference.mean()))
            seeds.append(len(difference))
        shown = ", ".join(f"{left.scale} {100 * mean:+.2f}" for (left, _), mean in zip(gains, means, strict=True))
        return Evidence(
            statement=f"gain of {gains[0][0].method}: {shown} points",
            holds=bool(np.all(np.diff(means) < 0)),
            n=min(seeds),
            trials=tuple(trial for pair in gains for row in pair for trial in rows.of(row)["trial_id"]),
        )

    return _Check(tuple(row for pair in gains for row in pair), compare)


def _nothing_forgotten(row: Row) -> _Check:
    """Every task's accuracy at the end is what it was when it was learned."""

    def compare(rows: Rows) -> Evidence:
        trials = rows.of(row)
        forgetting = trials["forgetting"]
        return Evidence(
            statement=f"{row}: forgetting {100 * forgetting.abs().max():.3g} points at most",
            holds=bool((forgetting == 0).all()),
            n=int(forgetting.notna().all()) * len(trials),
            trials=tuple(trials["trial_id"]),
        )

    return _Check((row,), compare)


R, P, CIFAR, MINI = "r-mnist", "p-mnist", "split-cifar100", "split-miniimagenet"
PARAMS, SECONDS = "params_per_task", "train_seconds_per_task"


def _nmn(scale: str, benchmark: str, **settings: Any) -> Row:
    return Row("neuromodnet", scale, benchmark, settings)


def _fly(scale: str, benchmark: str, **settings: Any) -> Row:
    return Row("flynet", scale, benchmark, settings)


def _others(benchmark: str) -> Iterator[Row]:
    """Table 1's rows but for NeuroModNet's, which learn their tasks one after another."""
    yield from (Row(method, "FC256", benchmark) for method in ("psp", "batche", "supsup"))
    yield from (_fly(scale, benchmark) for scale in FLIES)


def _claims() -> Iterator[tuple[str, Iterable[_Check]]]:
    yield (
        "NeuroModNet FC256 beats BatchE on R-MNIST and P-MNIST with far fewer parameters",
        [
            check
            for on in (R, P)
            for check in (
                better(_nmn("FC256", on), Row("batche", "FC256", on)),
                cheaper(_nmn("FC256", on), Row("batche", "FC256", on), PARAMS, FAR_FEWER),
            )
        ],
    )
    yield (
        "NeuroModNet grows with H, reaches or passes SupSup with far fewer parameters, and FC4096 is the best of all",
        [
            *(better(_nmn(wide, on), _nmn(narrow, on)) for on in (R, P) for narrow, wide in itertools.pairwise(WIDTHS)),
            *(cheaper(_nmn("FC4096", on), Row("supsup", "FC256", on), PARAMS, FAR_FEWER) for on in (R, P)),
            *(better(_nmn("FC4096", on), other) for on in (R, P) for other in _others(on)),
        ],
    )
    yield (
        "FlyNet 10d beats BatchE; FlyNet 40d passes SupSup",
        [
            check
            for on in (R, P)
            for check in (
                better(_fly("10d", on), Row("batche", "FC256", on)),
                better(_fly("40d", on), Row("supsup", "FC256", on)),
            )
        ],
    )
    yield (
        "PSP is markedly worse on P-MNIST than on R-MNIST, and uneven over tasks",
        [
            better(Row("psp", "FC256", R), Row("psp", "FC256", P), MARKEDLY),
            _uneven(Row("psp", "FC256", P), Row("supsup", "FC256", P)),
        ],
    )
    yield (
        "On the splits: cheaper than BatchE; slightly below SupSup but faster; PSP fails; more feature maps are better",
        [
            *(
                cheaper(_nmn("1d", on), Row("batche", "1d", on), cost)
                for on in (CIFAR, MINI)
                for cost in (PARAMS, SECONDS)
            ),
            better(Row("supsup", "1d", MINI), _nmn("1d", MINI)),
            cheaper(_nmn("1d", MINI), Row("supsup", "1d", MINI), SECONDS),
            *(better(_nmn("1d", on), Row("psp", "1d", on), MARKEDLY) for on in (CIFAR, MINI)),
            *(better(_nmn(more, CIFAR), _nmn(less, CIFAR)) for less, more in itertools.pairwise(MAPS)),
        ],
    )
    yield (
        "Local and global modulation beats local alone for NeuroModNet at every H; FlyNet's gain shrinks as N grows",
        [
            *(better(_nmn(scale, R), _nmn(scale, R, modulation="local")) for scale in WIDTHS),
            _shrinking([(_fly(scale, R), _fly(scale, R, modulation="local")) for scale in FLIES]),
        ],
    )
    yield (
        "Global modulation alone does poorly",
        [better(_nmn("FC256", R), _nmn("FC256", R, modulation="global"), POORLY)],
    )
    yield (
        "Without pretraining is better overall; pretraining wins on the first two tasks",
        [
            better(_nmn("FC4096", R), _nmn("FC4096", R, pretrained=True)),
            _first_tasks(_nmn("FC4096", R, pretrained=True), _nmn("FC4096", R), 2),
        ],
    )
    yield (
        "Nothing is forgotten: accuracy on a task after it was learned equals its accuracy at the end",
        [
            _nothing_forgotten(row)
            for on in (R, P)
            for row in (_fly("10d", on), _nmn("FC256", on), Row("supsup", "FC256", on), Row("batche", "FC256", on))
        ],
    )


def verdicts(trials: pd.DataFrame) -> list[Verdict]:
    """What the trials that are there say of the paper's nine claims.

    Args:
        trials: of any stores, as `frames.trials_frame` gives them.
    """
    rows = Rows(trials)
    return [_verdict(number, claim, list(checks), rows) for number, (claim, checks) in enumerate(_claims(), start=1)]


def _verdict(number: int, claim: str, checks: Sequence[_Check], rows: Rows) -> Verdict:
    missing: dict[str, None] = {}
    evidence = []
    for check in checks:
        if lacking := rows.lacking(check.rows):
            missing |= dict.fromkeys(lacking)
            continue
        found = check.compare(rows)
        if found.n:
            evidence.append(dataclasses.replace(found, statement=found.statement + rows.note(found.trials)))
        else:
            missing[f"{' and '.join(map(str, check.rows))}, with numbers at a common seed"] = None
    if missing:
        word: Word = "open"
    else:
        word = "confirmed" if all(found.holds for found in evidence) else "refuted"
    return Verdict(number=number, claim=claim, word=word, evidence=tuple(evidence), missing=tuple(missing))


def as_frame(found: Iterable[Verdict]) -> pd.DataFrame:
    """Verdicts as rows: number, claim, verdict, comparison, holds, n, trials; one without comparisons has nulls."""
    return pd.DataFrame(
        [
            {"number": verdict.number, "claim": verdict.claim, "verdict": verdict.word, **given}
            for verdict in found
            for given in [dataclasses.asdict(evidence) for evidence in verdict.evidence] or [{}]
        ]
    )
