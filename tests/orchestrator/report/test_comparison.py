"""Differences paired by seed and task, their tests, Holm's correction, ranks."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from orchestrator.errors import UserError
from orchestrator.report.comparison import ablation_bases, against, compare, holm, paired, ranks, sign_flip_test, t_test
from orchestrator.store.manifests import Manifest, ManifestCell
from tests.refusals import refused

SETTINGS = json.dumps({"benchmark": {"kind": "rotated"}, "method": {}})


def cell(method: str, seeds: range = range(3), variant: str = "", **more: Any) -> ManifestCell:
    names = {"method": method, "variant": variant, "scale": "FC16", "benchmark": "r", **more}
    return ManifestCell(**names, trials={seed: f"{method}{variant}{seed}" for seed in seeds})


def sweep(*cells: ManifestCell) -> Manifest:
    return Manifest(name="s", cells=cells)


def trials(**finals: dict[int, list[float]]) -> pd.DataFrame:
    """Finished trials of methods: the accuracies of their tasks by seed."""
    rows = [
        {"trial_id": f"{method}{seed}", "final": np.array(final), "settings": SETTINGS}
        for method, by_seed in finals.items()
        for seed, final in by_seed.items()
    ]
    return pd.DataFrame(rows, columns=["trial_id", "final", "settings"])


@pytest.mark.parametrize("num_tasks", [2, 5, 12])
def test_a_difference_is_what_other_libraries_make_of_the_numbers(num_tasks: int) -> None:
    """Mean, deviation, t interval and paired t test over seeds; an exact sign-flip test over tasks."""
    generator = np.random.default_rng(num_tasks)
    own, other = generator.random((3, num_tasks)), generator.random((3, num_tasks)) - 0.2
    found = paired(own.tolist(), other.tolist())
    test = stats.ttest_rel(own.mean(axis=1), other.mean(axis=1))
    low, high = test.confidence_interval(0.95)
    assert found["p"] == pytest.approx(test.pvalue, rel=1e-9)
    assert found["difference"] - found["ci95"] == pytest.approx(low, rel=1e-9)
    assert found["difference"] + found["ci95"] == pytest.approx(high, rel=1e-9)
    assert found["sd"] == pytest.approx(np.std((own - other).mean(axis=1), ddof=1))
    by_task = (own - other).mean(axis=0)
    exact = stats.permutation_test((by_task,), np.mean, permutation_type="samples", n_resamples=np.inf)
    assert found["p_tasks"] == pytest.approx(exact.pvalue, rel=1e-9)
    assert (found["n"], found["num_tasks"], found["tasks_above"]) == (3, num_tasks, int((by_task > 0).sum()))


def test_signs_are_drawn_where_there_are_too_many() -> None:
    """Near the exact p, the same each time, and never 0."""
    differences = np.random.default_rng(1).normal(0.3, 1, size=15)
    exact = stats.permutation_test((differences,), np.mean, permutation_type="samples", n_resamples=np.inf).pvalue
    assert sign_flip_test(differences) == pytest.approx(exact, abs=0.02)
    assert sign_flip_test(differences) == sign_flip_test(differences)
    assert sign_flip_test(np.full(100, 0.1)) == 1 / 10_000


def test_three_seeds_by_hand() -> None:
    """Differences of 1, 2 and 3 points: mean 2, sd 1, t = 2 sqrt 3 at 2 degrees, where p = 1 - t / sqrt(t^2 + 2)."""
    assert t_test(np.array([0.01, 0.02, 0.03])) == pytest.approx(1 - math.sqrt(12 / 14))


@pytest.mark.parametrize(("differences", "p"), [([0.0, 0.0], 1.0), ([0.1, 0.1], np.nan), ([0.1], np.nan), ([], np.nan)])
def test_a_test_that_has_nothing_to_go_by_says_so(differences: list[float], p: float) -> None:
    """Equal numbers differ by nothing; where nothing is known of the spread there is no p, and no 0."""
    assert t_test(np.array(differences)) == pytest.approx(p, nan_ok=True)


def test_holms_correction_by_hand() -> None:
    """The smallest of three by 3, the next by 2; never falling, at most 1; what is not known stays out."""
    assert holm(np.array([0.04, 0.01, np.nan, 0.03])).tolist() == pytest.approx([0.06, 0.03, np.nan, 0.06], nan_ok=True)
    assert holm(np.array([0.9, 0.8])).tolist() == [1.0, 1.0]


def test_only_seeds_that_both_have_are_compared() -> None:
    """Paired: seed 1 of one side and seed 2 of the other have no partner; it is said how many have."""
    manifest = sweep(cell("a"), cell("b"))
    known = trials(a={0: [0.5, 0.7], 1: [0.9, 0.9]}, b={0: [0.4, 0.4], 2: [0.0, 0.0]})
    (found,) = compare(manifest, known, against(manifest, "b")).to_dict("records")
    assert (found["against"], found["n"], found["asked"]) == ("b FC16", 1, 3)
    assert found["difference"] == pytest.approx(0.2)
    assert math.isnan(found["sd"])
    assert math.isnan(found["p_holm"])


def test_what_cannot_be_compared_has_no_numbers() -> None:
    """Other tasks, an accuracy that is no number, a mixed cell, another scheme of frozen weights: each says why."""
    manifest = sweep(cell("a"), cell("b"), cell("c"), cell("d"), cell("e"), cell("f"))
    known = trials(**{name: {0: [0.5], 1: [0.6], 2: [0.7]} for name in "abdef"}, c={0: [0.5], 1: [np.nan]})
    known.loc[known["trial_id"].str.startswith("b"), "settings"] = SETTINGS.replace("rotated", "permuted")
    known.loc[known["trial_id"] == "d1", "settings"] = SETTINGS.replace("rotated", "split")
    known["backbones"] = ["second" if name.startswith("e") else "first" for name in known["trial_id"]]
    found = compare(manifest, known, against(manifest, "a"))
    assert found["apart"].tolist() == [
        "its tasks are not the base's",
        "this cell has an accuracy that is not a number",
        "this cell is mixed: benchmark.kind is rotated (seeds 0, 2), split (seed 1)",
        "it and the base differ: backbones is second (seeds 0, 1, 2), first (seeds 0, 1, 2)",
        "",
    ]
    assert found["difference"].isna().tolist() == [True] * 4 + [False]
    assert found["p_holm"].tolist()[-1] == 1.0


def test_cells_of_a_methods_unlike_code_are_not_compared() -> None:
    """A variant against its base of another code of the method; another method's code is another by design."""
    kinds = {"a": "ewc", "b": "ewc", "c": "si"}
    codes = {"a": "0a", "b": "1a", "c": "1c"}
    known = trials(**{name: {0: [0.5], 1: [0.6], 2: [0.7]} for name in kinds})
    names = [trial_id[0] for trial_id in known["trial_id"]]
    known["settings"] = [json.dumps({**json.loads(SETTINGS), "method": {"kind": kinds[name]}}) for name in names]
    known["code.method"] = [codes[name] for name in names]
    manifest = sweep(cell("a"), cell("b"), cell("c"))
    found = compare(manifest, known, against(manifest, "a"))
    assert found["apart"].tolist() == [
        "it and the base differ: code.method is 1a (seeds 0, 1, 2), 0a (seeds 0, 1, 2)",
        "",
    ]
    known["code.method.accepted"] = [frozenset({"0a", "1a"}) if name in "ab" else None for name in names]
    assert compare(manifest, known, against(manifest, "a"))["apart"].tolist() == ["", ""]


def test_an_ablation_is_compared_with_its_base_of_the_same_scale_and_benchmark() -> None:
    """The base itself, and cells without one, are compared with nothing."""
    cells = [
        cell("m", variant=variant, benchmark=benchmark, base="full")
        for benchmark in ("r", "p")
        for variant in ("less", "full")
    ]
    base_of = ablation_bases(sweep(*cells, cell("other")))
    assert [base_of(item) for item in (*cells, cell("other"))] == [cells[1], None, cells[3], None, None]


@pytest.mark.parametrize("name", ["a local FC16", "a local", "b", "b FC16"])
def test_a_reference_is_named_as_far_as_needed(name: str) -> None:
    """By its method, and by variant and scale where it has several."""
    manifest = sweep(cell("a", variant="local"), cell("a", variant="global"), cell("b"))
    assert len(compare(manifest, trials(), against(manifest, name))) == 2


def test_a_reference_that_is_none_or_several_is_refused() -> None:
    """The nearest name, or those to choose from."""
    manifest = sweep(cell("aa", variant="local"), cell("aa", variant="global"), cell("b"))
    with refused(UserError, "unknown-name", says=["'b FC17'", "'b FC16'?"]):
        against(manifest, "b FC17")
    with refused(UserError, "several-rows-match", says=["'aa'", "aa local FC16", "aa global FC16"]):
        against(manifest, "aa")


def test_ranks_are_averaged_over_benchmarks_and_ties_shared() -> None:
    """Only rows with all their seeds on every benchmark are ranked."""
    accuracies = {"a": (0.9, 0.5), "b": (0.8, 0.5), "c": (0.7, 0.9), "d": (1.0, 1.0)}
    summary = pd.DataFrame(
        {"method": name, "variant": "", "scale": "s", "benchmark": benchmark, "accuracy": value, "n": n, "asked": 3}
        for name, values in accuracies.items()
        for benchmark, value, n in zip("xy", values, (3, 2 if name == "d" else 3), strict=True)
    )
    found = ranks(summary).set_index("method")
    assert found["rank"].tolist() == pytest.approx([(1 + 2.5) / 2, (2 + 2.5) / 2, (3 + 1) / 2, np.nan], nan_ok=True)
    assert (found.loc["d", "lacking"], found.loc["a", "num_ranked"]) == ("y", 3)
    assert (found.loc["c", "best"], found.loc["c", "worst"]) == (1, 3)
