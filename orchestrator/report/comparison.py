"""Comparisons of cells with a reference, paired by seed and task; multiple testing; ranks over benchmarks. Pure.

Which test is right for three seeds and T tasks? A claim such as "A beats B on this benchmark" must hold for another
seed: other weights, other batches. So the seed is the unit of replication, and `p` is the p value of a paired t test
over seeds, with differences averaged over tasks first. With three seeds it has two degrees of freedom and little
power, but it can be significant; a sign-flip or Wilcoxon test of three seeds cannot, since its smallest two-sided p is
2/8. T tasks at three seeds are not 3 T replications: the tasks of a seed share their frozen weights, so their
accuracies are correlated.

`p_tasks` answers another question: whether, for these particular seeds, the difference exceeds the variation from task
to task. It is a sign-flip test of the tasks' differences, averaged over seeds: exact up to `MAX_EXACT` tasks, beyond
that with `NUM_FLIPS` random sign vectors, always the same ones. It says nothing about other seeds.

Both are corrected for all comparisons of a table by Holm's method, which does not assume independence.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from orchestrator.errors import UserError, nearest
from orchestrator.report import aggregate
from orchestrator.store import compatibility
from orchestrator.store.manifests import Manifest, ManifestCell

BaseOf: TypeAlias = Callable[[ManifestCell], ManifestCell | None]
"""Returns the cell that a cell is compared with; None if there is none."""

MAX_EXACT = 12
"""Number of tasks up to which all signs are enumerated: 4,096."""

NUM_FLIPS = 9_999

ROUNDING = 1e-12
"""Means of equal numbers summed in another order differ by less."""


def compare(manifest: Manifest, trials: pd.DataFrame, base_of: BaseOf) -> pd.DataFrame:
    """Compare cells of a sweep with other cells of it.

    Args:
        manifest: the sweep's manifest.
        trials: the store's rows of its trials, with `final` (the accuracy of each task after the last one).
        base_of: returns the cell to compare a cell with; None if there is none.

    Returns:
        One row per comparison, in the sweep's order: method, variant, scale, benchmark; against, the base; n, the seeds
        that both have; asked, those that the sweep asks of both; difference, the mean over these seeds and over tasks
        of the accuracy minus the base's; sd (ddof = 1) and ci95 (half the width of the t interval) over seeds; p and
        p_holm, of the paired t test over seeds; num_tasks; tasks_above, the number of tasks whose mean over seeds is
        above the base's; p_tasks and p_tasks_holm, of the sign-flip test over tasks; apart, what makes a comparison
        impossible, in which case all numbers are NaN. Results that a test cannot give are NaN.
    """
    known = {row["trial_id"]: row for row in aggregate.records(trials)}
    pairs = [(cell, base) for cell in manifest.cells if (base := base_of(cell)) is not None]
    found = pd.DataFrame([_compared(cell, base, known) for cell, base in pairs], columns=_COLUMNS)
    for name in ("p", "p_tasks"):
        found[f"{name}_holm"] = holm(found[name].to_numpy(dtype=float))
    return found


_COLUMNS = [
    *aggregate.CELL,
    *("against", "n", "asked", "difference", "sd", "ci95", "p", "p_holm"),
    *("num_tasks", "tasks_above", "p_tasks", "p_tasks_holm", "apart", "code_changes"),
]


def _compared(cell: ManifestCell, base: ManifestCell, known: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    asked = [seed for seed in cell.trials if seed in base.trials]
    own, other = (
        [{**known[id_], "seed": seed} for seed in asked if (id_ := side.trials[seed]) in known] for side in (cell, base)
    )
    return {
        **cell.names,
        "against": base.row_name,
        **difference(own, other, len(asked)),
    }


def difference(own: Sequence[Mapping[str, Any]], other: Sequence[Mapping[str, Any]], asked: int) -> dict[str, Any]:
    """The difference between the finished trials of two cells, the first minus the second.

    Args:
        own: one row per seed, with `seed` and `final`.
        other: likewise.
        asked: the number of seeds that both should have.

    Returns:
        asked, apart, code_changes, n, difference, sd, ci95, p, num_tasks, tasks_above, p_tasks; see `compare`.
    """
    own, other = compatibility.once(own), compatibility.once(other)
    apart = _apart(own, other)
    others = {} if apart else {row["seed"]: row for row in other}
    pairs = [(row, others[row["seed"]]) for row in own if row["seed"] in others]
    return {
        "asked": asked,
        "apart": apart,
        "code_changes": _code_changes(own, other),
        **paired([row["final"] for row, _ in pairs], [row["final"] for _, row in pairs]),
    }


def _apart(own: Sequence[Mapping[str, Any]], other: Sequence[Mapping[str, Any]]) -> str:
    """Why two cells cannot be compared: one has incompatible trials or a NaN accuracy, or their tasks differ."""
    for rows, name in ((own, "this cell"), (other, "the base")):
        mixed = compatibility.show_mixture(compatibility.mixture(rows)) or compatibility.show_repeated(rows)
        if mixed:
            return f"{name} is mixed: {mixed}"
        if any(not np.all(np.isfinite(np.asarray(row["final"], dtype=float))) or not len(row["final"]) for row in rows):
            return f"{name} has an accuracy that is not a number"
    if not own or not other:
        return ""
    if _benchmark(own[0]) != _benchmark(other[0]) or len(own[0]["final"]) != len(other[0]["final"]):
        return "its tasks are not the base's"
    between = compatibility.mixture([*own, *other], [name for name in compatibility.APART if name != "settings"])
    return f"it and the base differ: {compatibility.show_mixture(between)}" if between else ""


def _code_changes(own: Sequence[Mapping[str, Any]], other: Sequence[Mapping[str, Any]]) -> str:
    """The `code_changes` of either side; see `aggregate.summarise`."""
    sides = {"this cell": compatibility.show_code_changes(own), "the base": compatibility.show_code_changes(other)}
    return aggregate.SEPARATOR.join(f"{name}, {changes}" for name, changes in sides.items() if changes)


def _benchmark(row: Mapping[str, Any]) -> Any:
    return json.loads(row["settings"])["benchmark"]


def paired(own: Sequence[Sequence[float]], other: Sequence[Sequence[float]]) -> dict[str, Any]:
    """Compare two cells' accuracies by seed and task, the first minus the second.

    Args:
        own: [n, T], in [0, 1].
        other: [n, T], of the same seeds and tasks.

    Returns:
        n, difference, sd, ci95, p, num_tasks, tasks_above, p_tasks; see `compare`.
    """
    n = len(own)
    if n == 0:
        unknown = dict.fromkeys(("difference", "sd", "ci95", "p", "num_tasks", "tasks_above", "p_tasks"), np.nan)
        return {"n": 0, **unknown}
    differences_nT = np.asarray(own, dtype=float) - np.asarray(other, dtype=float)
    difference, sd, ci95 = aggregate.mean_and_spread(differences_nT.mean(axis=1))
    by_task_T = differences_nT.mean(axis=0)
    return {
        "n": n,
        "difference": difference,
        "sd": sd,
        "ci95": ci95,
        "p": t_test(differences_nT.mean(axis=1)),
        "num_tasks": len(by_task_T),
        "tasks_above": int(np.sum(by_task_T > ROUNDING)),
        "p_tasks": sign_flip_test(by_task_T),
    }


def t_test(differences: NDArray[Any]) -> float:
    """The two-sided p of a t test that the mean of differences [n] is 0.

    1 if all are 0; NaN for fewer than two, and if all are equal but not 0, since their spread is then unknown.
    """
    if len(differences) < 2:
        return np.nan
    if np.std(differences, ddof=1) <= ROUNDING:
        return 1.0 if abs(np.mean(differences)) <= ROUNDING else np.nan
    return float(stats.ttest_1samp(differences, 0.0).pvalue)


def sign_flip_test(differences: NDArray[Any]) -> float:
    """The two-sided p of the mean of differences [T] under random signs: a sign-flip test.

    The fraction of sign vectors whose mean is at least as far from 0; random ones include the signs of the data, so
    that p is never 0. Pitman 1937; like a one-sample scipy.stats.permutation_test. NaN for fewer than two.
    """
    if len(differences) < 2:
        return np.nan
    sums = np.abs(_signs(len(differences)) @ differences)
    return float(np.mean(sums >= abs(differences.sum()) - ROUNDING * len(differences)))


@functools.lru_cache(maxsize=8)
def _signs(num: int) -> NDArray[Any]:
    """Sign vectors [F, num] of 1 and -1; the first is all 1."""
    if num <= MAX_EXACT:
        bits = (np.arange(2**num)[:, None] >> np.arange(num)) & 1
    else:
        drawn = np.random.default_rng(0).integers(0, 2, size=(NUM_FLIPS, num))
        bits = np.concatenate([np.zeros((1, num), dtype=drawn.dtype), drawn])
    return 1.0 - 2.0 * bits


def holm(p: NDArray[Any]) -> NDArray[Any]:
    """Holm's correction of p values [m], which controls the family-wise error rate. NaN is ignored.

    Source: Holm 1979, "A simple sequentially rejective multiple test procedure".
    """
    adjusted = np.full(len(p), np.nan)
    order = [index for index in np.argsort(p) if not np.isnan(p[index])]
    highest = 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, (len(order) - rank) * p[index]))
        adjusted[index] = highest
    return adjusted


def against(manifest: Manifest, reference: str) -> BaseOf:
    """A function for `compare` that maps a cell to the reference's on its benchmark, the reference itself to None.

    Args:
        manifest: the sweep's manifest.
        reference: a method's label; with its scale or variant if it has several: `neuromodnet local FC256`.

    Raises:
        UserError: no row has this name, or several have it on one benchmark.
    """
    chosen: dict[str, ManifestCell] = {}
    names: dict[str, None] = {}
    for cell in manifest.cells:
        names[cell.row_name] = None
        if reference in (cell.method, cell.row_name, f"{cell.method} {cell.variant}", f"{cell.method} {cell.scale}"):
            if cell.benchmark in chosen:
                several = [name for name in names if name.startswith(cell.method)]
                raise UserError(
                    "several-rows-match",
                    f"--against: expected one row, given {reference!r}; it may be {' or '.join(several)}",
                )
            chosen[cell.benchmark] = cell
    if not chosen:
        raise UserError("unknown-name", f"--against: {nearest(reference, names)}")

    def base_of(cell: ManifestCell) -> ManifestCell | None:
        base = chosen.get(cell.benchmark)
        return None if base is cell else base

    return base_of


def ablation_bases(manifest: Manifest) -> BaseOf:
    """A function for `compare` that maps a cell to its ablation's base; None for the base and outside ablations."""
    cells = {(cell.method, cell.variant, cell.scale, cell.benchmark): cell for cell in manifest.cells}

    def base_of(cell: ManifestCell) -> ManifestCell | None:
        if cell.base is None or cell.base == cell.variant:
            return None
        return cells.get((cell.method, cell.base, cell.scale, cell.benchmark))

    return base_of


def ranks(summary: pd.DataFrame) -> pd.DataFrame:
    """Average ranks over benchmarks, by accuracy; 1 is the best, ties share the mean of their ranks.

    Only rows with a mean over all requested seeds on every benchmark are ranked: ranks among fewer are not comparable.

    Args:
        summary: the result of `aggregate.summarise`.

    Returns:
        method, variant, scale; rank, NaN if the row is not ranked; best and worst, over benchmarks; num_benchmarks;
        num_ranked, the number of ranked rows; lacking, the benchmarks that keep a row from being ranked.
    """
    benchmarks = list(dict.fromkeys(summary["benchmark"]))
    is_whole = summary["accuracy"].notna() & (summary["n"] == summary["asked"])
    rows = aggregate.CELL[:3]
    whole = summary[is_whole]
    table = whole.pivot_table(index=rows, columns="benchmark", values="accuracy").reindex(columns=benchmarks)
    ranked = table.dropna().rank(ascending=False, method="average")
    found = []
    places = dict(zip(ranked.index, ranked.to_numpy(), strict=True))
    for names, group in aggregate.grouped(summary.assign(is_whole=is_whole), rows).items():
        own = places.get(names, np.array([]))
        have = {row["benchmark"] for row in group if row["is_whole"]}
        found.append(
            {
                **dict(zip(rows, names, strict=True)),
                "rank": float(own.mean()) if len(own) else np.nan,
                "best": float(own.min()) if len(own) else np.nan,
                "worst": float(own.max()) if len(own) else np.nan,
                "num_benchmarks": len(benchmarks),
                "num_ranked": len(ranked),
                "lacking": ", ".join(name for name in benchmarks if name not in have),
            }
        )
    return pd.DataFrame(found)
