"""Summaries of rows: means, deviations, intervals, and missing seeds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from orchestrator.report.aggregate import notes, pivot, show_accuracy, show_count, summarise
from orchestrator.store.manifests import Manifest, ManifestCell
from tests.said import differs, noted

NEWER = {"continual": True, "validation": 0, "params_per_task": 99.0, "ratio": None}
"""What a manifest says of a cell besides its names and trials; older ones do not."""


def cell(seeds: Sequence[int], *, said: Mapping[str, Any] = NEWER, **names: str) -> ManifestCell:
    """A manifest's cell; its trials are called after its names and their seed."""
    full = {"method": "flynet", "variant": "", "scale": "10d", "benchmark": "r-digits", **names}
    return ManifestCell(**full, **said, trials={seed: trial_id(full, seed) for seed in seeds})


def trial_id(names: Mapping[str, Any], seed: int) -> str:
    """A trial's name in these tests."""
    return "/".join(names[name] for name in ("method", "variant", "scale", "benchmark")) + f"/{seed}"


def manifest(*cells: ManifestCell) -> Manifest:
    """A sweep's manifest."""
    return Manifest(name="a sweep", cells=cells)


def rows(cell: ManifestCell, accuracies: Mapping[int, float], **changes: Any) -> list[dict[str, Any]]:
    """The store's rows of a cell's finished trials."""
    return [
        {
            "trial_id": trial_id(cell.names, seed),
            "accuracy": accuracy,
            "forgetting": 0.0,
            "backward_transfer": 0.0,
            "params_per_task": 99.0,
            "trained_per_task": 98,
            "stored_per_task": 97,
            "train_seconds_per_task": 1.0 + seed,
            "group_size": 4,
            "device": "AVX512",
            **changes,
        }
        for seed, accuracy in accuracies.items()
    ]


def frame(*rows: dict[str, Any]) -> pd.DataFrame:
    """Rows as the store gives them, with all columns also where there is none."""
    counts = ["params_per_task", "trained_per_task", "stored_per_task", "train_seconds_per_task"]
    others = ["trial_id", "accuracy", "forgetting", "backward_transfer", "group_size", "device"]
    return pd.DataFrame(list(rows), columns=[*others, *counts])


@pytest.mark.parametrize("accuracies", [[0.5, 0.75], [0.9, 0.91, 0.935], [0.1, 0.2, 0.4, 0.8, 0.3]])
def test_mean_deviation_and_interval(accuracies: list[float]) -> None:
    """The mean, the sample deviation (n - 1) and the t interval agree with what other libraries make of the numbers."""
    asked = cell(range(len(accuracies)))
    (found,) = summarise(manifest(asked), frame(*rows(asked, dict(enumerate(accuracies))))).to_dict("records")
    assert found["accuracy"] == pytest.approx(statistics.fmean(accuracies), rel=1e-12)
    assert found["sd"] == pytest.approx(statistics.stdev(accuracies), rel=1e-12)
    low, high = stats.ttest_1samp(accuracies, 0.0).confidence_interval(0.95)
    assert found["accuracy"] - found["ci95"] == pytest.approx(low, rel=1e-9)
    assert found["accuracy"] + found["ci95"] == pytest.approx(high, rel=1e-9)


def test_the_interval_of_two_seeds_by_hand() -> None:
    """Of 0.5 and 0.7: sd = 0.2 / sqrt 2, and t(0.975, 1) = tan(0.475 pi) = 12.706, so 12.706 * 0.1."""
    asked = cell([0, 1])
    (found,) = summarise(manifest(asked), frame(*rows(asked, {0: 0.5, 1: 0.7}))).to_dict("records")
    assert found["sd"] == pytest.approx(0.2 / math.sqrt(2))
    assert found["ci95"] == pytest.approx(0.1 * math.tan(0.475 * math.pi))


def test_a_cell_says_what_it_cost_and_needs() -> None:
    """Parameter counts are the trials', training times are averaged over seeds."""
    asked = cell([0, 1])
    (found,) = summarise(manifest(asked), frame(*rows(asked, {0: 0.5, 1: 0.5}))).to_dict("records")
    assert (found["params_per_task"], found["trained_per_task"], found["stored_per_task"]) == (99.0, 98, 97)
    assert (found["train_seconds_per_task"], found["group_sizes"], found["devices"]) == (1.5, "4", "AVX512")
    assert (found["n"], found["asked"], found["missing_seeds"]) == (2, 2, "")


def test_a_trial_computed_under_more_than_one_code_is_marked() -> None:
    """It stays in the mean; the number has a mark, and a note says which seed and what changed."""
    asked, other = cell([0, 1, 2]), cell([0, 1], benchmark="p-digits")
    marked = rows(asked, {1: 0.5}, code_changes="torch 1 -> 2, other code of crwn")
    unmarked = [*rows(asked, {0: 0.5, 2: 0.5}, code_changes=""), *rows(other, {0: 0.5, 1: 0.5})]
    trials = pd.DataFrame([*marked, *unmarked])
    summary = summarise(manifest(asked, other), trials)
    assert summary["code_changes"].tolist() == ["seed 1: torch 1 -> 2, other code of crwn", ""]
    assert summary["accuracy"].tolist() == [0.5, 0.5]
    assert pivot(summary).loc[0, ["r-digits", "p-digits"]].tolist() == ["50.00 ± 0.00 (n=3)*", "50.00 ± 0.00 (n=2)"]
    (note,) = notes(summary)
    assert note == (
        "flynet 10d on r-digits, marked *: computed by several code versions, since a run resumed with another: "
        "seed 1: torch 1 -> 2, other code of crwn."
    )


def test_seeds_of_unlike_code_are_noted_apart() -> None:
    """Nothing holds results of other code together, as tests do over kernels."""
    asked = cell([0, 1])
    first, second = ({"code.method": code, "code.crwn": name, "numerics.kernel": name} for name, code in ("ax", "bx"))
    summary = summarise(
        manifest(asked), pd.DataFrame([*rows(asked, {0: 0.5}, **first), *rows(asked, {1: 0.5}, **second)])
    )
    tolerated, code = notes(summary)
    assert tolerated.endswith("within a tested tolerance: numerics.kernel in 1.")
    assert f"{noted('code.crwn', 1)};" in code
    assert differs("code.crwn", "a (seed 0)", "b (seed 1)") in summary.loc[0, "noted"]


@pytest.mark.parametrize(("column", "values"), [("code.method", ("0a", "1a")), ("code.results_version", (1, 2))])
def test_seeds_of_a_methods_other_code_are_not_averaged(column: str, values: tuple[Any, Any]) -> None:
    """The cell says which seeds are of which code, and what can be done; counted as one they have a mean."""
    asked = cell([0, 1, 2])
    old = rows(asked, {0: 0.5, 1: 0.5}, **{column: values[0]})
    new = rows(asked, {2: 0.8}, **{column: values[1]})
    summary = summarise(manifest(asked), pd.DataFrame([*old, *new]))
    assert pivot(summary)["r-digits"].tolist() == ["mixed (n=3)"]
    mixed, remedy = notes(summary)
    assert differs(column, f"{values[0]} (seeds 0, 1)", f"{values[1]} (seed 2)") in mixed
    assert "--recompute METHOD" in remedy
    assert "crwn accept STORE METHOD" in remedy

    one = {f"{column}.accepted": frozenset(values)}
    summary = summarise(manifest(asked), pd.DataFrame([{**row, **one} for row in (*old, *new)]))
    assert pivot(summary)["r-digits"].tolist() == ["60.00 ± 17.32 (n=3)"]
    (note,) = notes(summary)
    assert f"{column} in 1" in note


def test_seeds_of_unknown_code_agree_with_any_and_are_noted() -> None:
    """A notebook's, or an older record's."""
    asked = cell([0, 1])
    known = rows(asked, {1: 0.75}, **{"code.method": "0a"})
    summary = summarise(manifest(asked), pd.DataFrame([*rows(asked, {0: 0.5}), *known]))
    assert summary["accuracy"].tolist() == [0.625]
    assert differs("code.method", "unknown (seed 0)", "0a (seed 1)") in summary.loc[0, "noted"]
    (note,) = notes(summary)
    assert noted("code.method", 1) in note


def test_one_seed_has_no_deviation() -> None:
    """The spread is unknown."""
    asked = cell([5])
    (found,) = summarise(manifest(asked), frame(*rows(asked, {5: 0.5}))).to_dict("records")
    assert found["accuracy"] == 0.5
    assert math.isnan(found["sd"])
    assert math.isnan(found["ci95"])
    assert show_accuracy(found) == "50.00 ± - (n=1)"


def test_missing_seeds_are_counted_and_named() -> None:
    """A mean over two of three seeds is shown as such."""
    asked = cell([3, 4, 5])
    (found,) = summarise(manifest(asked), frame(*rows(asked, {3: 0.5, 5: 0.7}))).to_dict("records")
    assert (found["n"], found["asked"], found["missing_seeds"]) == (2, 3, "4")
    assert found["accuracy"] == pytest.approx(0.6)
    assert show_accuracy(found) == "60.00 ± 14.14 (2/3)"


@pytest.mark.parametrize("others", [False, True])
def test_a_cell_without_any_seed_has_no_numbers(*, others: bool) -> None:
    """If nothing is finished, there are no numbers, not even zero."""
    asked, other = cell([0, 1, 2]), cell([0], method="supsup")
    trials = frame(*rows(other, {0: 0.9})) if others else frame()
    (found,) = summarise(manifest(asked), trials).to_dict("records")
    assert (found["n"], found["asked"], found["missing_seeds"]) == (0, 3, "0 1 2")
    numbers = (
        "accuracy",
        "sd",
        "ci95",
        "forgetting",
        "backward_transfer",
        "trained_per_task",
        "train_seconds_per_task",
    )
    for name in numbers:
        assert math.isnan(found[name]), name
    assert show_accuracy(found) == "- (0/3)"
    assert pivot(summarise(manifest(asked), trials)).to_dict("records") == [
        {"method": "flynet", "scale": "10d", "r-digits": "- (0/3)", "params/task": "99"}
    ]


def test_what_a_manifest_says_of_a_cell_needs_no_result() -> None:
    """Its parameters, their ratio, and whether it is continual are known before the first trial ends, and stay."""
    said = {**NEWER, "continual": False, "params_per_task": 1234.5, "ratio": 0.25}
    asked = cell([0], said=said, method="mtl")
    for trials in (frame(), frame(*rows(asked, {0: 0.5}, params_per_task=1234.5))):
        (found,) = summarise(manifest(asked), trials).to_dict("records")
        assert (found["params_per_task"], found["ratio"], found["continual"]) == (1234.5, 0.25, False)


def test_a_manifest_of_an_older_crwn_says_less() -> None:
    """It is read all the same: no ratio, parameters from the records alone, and all of its methods were continual."""
    asked, finished = cell([0], said={}), cell([0], said={}, method="supsup")
    summary = summarise(manifest(asked, finished), frame(*rows(finished, {0: 0.5})))
    found, done = summary.to_dict("records")
    assert math.isnan(found["params_per_task"])
    assert done["params_per_task"] == 99.0
    assert summary["ratio"].isna().all()
    assert summary["continual"].tolist() == [True, True]
    assert pivot(summary).to_dict("records") == [
        {"method": "flynet", "scale": "10d", "r-digits": "- (0/1)", "params/task": "-", "s/task": "-"},
        {"method": "supsup", "scale": "10d", "r-digits": "50.00 ± - (n=1)", "params/task": "99", "s/task": "1 (4)"},
    ]


def test_forgetting_and_backward_transfer_are_means_over_seeds() -> None:
    """Each of its own column; what other cells forget is theirs."""
    asked, other = cell([0, 1]), cell([0, 1], method="psp")
    trials = frame(
        *rows(asked, {0: 0.5}, forgetting=0.25, backward_transfer=-0.5),
        *rows(asked, {1: 0.5}, forgetting=-0.125, backward_transfer=0.25),
        *rows(other, {0: 0.5, 1: 0.5}, forgetting=1.0, backward_transfer=-1.0),
    )
    found = summarise(manifest(asked, other), trials)
    assert found["forgetting"].tolist() == [0.0625, 1.0]
    assert found["backward_transfer"].tolist() == [-0.125, -1.0]


def test_a_measure_that_a_seed_does_not_have_is_not_known() -> None:
    """A mean over the other seeds would pass for one over all; the accuracy is known all the same."""
    asked = cell([0, 1])
    trials = frame(
        *rows(asked, {0: 0.5}, forgetting=0.25, backward_transfer=np.nan),
        *rows(asked, {1: 0.5}, forgetting=np.nan, backward_transfer=0.5),
    )
    (found,) = summarise(manifest(asked), trials).to_dict("records")
    assert math.isnan(found["forgetting"])
    assert math.isnan(found["backward_transfer"])
    assert found["accuracy"] == 0.5


def test_the_summary_keeps_the_sweeps_order_and_names() -> None:
    """Rows come as the manifest has them, whatever the order in which trials finished."""
    cells = [cell([0], method=method, benchmark=benchmark) for method in "ba" for benchmark in ("z", "y")]
    trials = [row for index, item in enumerate(cells) for row in rows(item, {0: index / 10})]
    found = summarise(manifest(*cells), frame(*reversed(trials)))
    assert found[["method", "benchmark"]].to_numpy().tolist() == [["b", "z"], ["b", "y"], ["a", "z"], ["a", "y"]]
    assert found["accuracy"].tolist() == [0.0, 0.1, 0.2, 0.3]


def test_trials_of_other_sweeps_do_no_harm() -> None:
    """A store holds the trials of several sweeps; only the manifest's count."""
    asked, other = cell([0, 1]), cell([0, 1], method="supsup")
    trials = frame(*rows(other, {0: 0.0, 1: 0.0}), *rows(asked, {0: 0.5, 1: 0.5}))
    (found,) = summarise(manifest(asked), trials).to_dict("records")
    assert (found["n"], found["accuracy"]) == (2, 0.5)


def test_arguments_are_left_as_they_are() -> None:
    """Aggregation is a pure function: what it is given is as it was."""
    asked = cell([0, 1])
    sweep, trials = manifest(asked), frame(*rows(asked, {0: 0.5, 1: 0.7}))
    before = (sweep.to_json_bytes(), trials.copy())
    pivot(summarise(sweep, trials))
    assert sweep.to_json_bytes() == before[0]
    pd.testing.assert_frame_equal(trials, before[1])


def test_a_table_has_a_row_a_method_and_a_column_a_benchmark() -> None:
    """Accuracies in percent with deviation and seeds; methods and benchmarks in the sweep's order."""
    cells = [
        cell([0, 1], method=method, scale=scale, benchmark=benchmark)
        for method, scale in (("supsup", "FC256"), ("flynet", "10d"))
        for benchmark in ("r-digits", "p-digits")
    ]
    trials = [row for index, item in enumerate(cells) for row in rows(item, {0: 0.5, 1: 0.5 + index / 10})]
    table = pivot(summarise(manifest(*cells), frame(*trials)))
    assert list(table.columns) == ["method", "scale", "r-digits", "p-digits", "params/task", "s/task"]
    assert table.to_numpy().tolist() == [
        ["supsup", "FC256", "50.00 ± 0.00 (n=2)", "55.00 ± 7.07 (n=2)", "99", "1.5 (4) / 1.5 (4)"],
        ["flynet", "10d", "60.00 ± 14.14 (n=2)", "65.00 ± 21.21 (n=2)", "99", "1.5 (4) / 1.5 (4)"],
    ]


def test_what_is_forgotten_stands_beside_accuracy_where_a_task_can_be_forgotten() -> None:
    """In points, mean and deviation; not where tasks are independent, learned together, or a stream's."""
    how: dict[str, dict[str, Any]] = {
        "finetune": {"grouping": "one", "independent": False, "forgetting": 0.4},
        "flynet": {"grouping": "any", "independent": True},
        "joint": {"grouping": "all", "independent": False, "forgetting": None},
    }
    cells = {name: cell([0, 1], method=name) for name in how}
    trials = {name: rows(cells[name], {0: 0.5, 1: 0.6}, **changes) for name, changes in how.items()}
    trials["finetune"][1]["forgetting"] = 0.5
    together = [row for own in trials.values() for row in own]
    summary = summarise(manifest(*cells.values()), pd.DataFrame(together))
    assert summary["can_forget"].tolist() == [True, False, False]
    assert pivot(summary)["forgetting"].tolist() == ["45.00 ± 7.07", "0.00 ± 0.00", "-"]
    for apart in ("flynet", "joint"):
        summary = summarise(manifest(cells[apart]), pd.DataFrame(trials[apart]))
        assert "forgetting" not in pivot(summary)
    summary = summarise(manifest(cells["finetune"]), pd.DataFrame(trials["finetune"]).assign(stream=True))
    assert "forgetting" not in pivot(summary)


def test_an_older_record_says_by_its_grouping_whether_it_can_forget() -> None:
    """Where only one task could be learned at a time, learning it changed the others."""
    asked = cell([0], method="psp")
    for grouping, can_forget in (("one", True), ("any", False), ("all", False)):
        trials = pd.DataFrame(rows(asked, {0: 0.5}, grouping=grouping, independent=None))
        assert summarise(manifest(asked), trials)["can_forget"].tolist() == [can_forget]


def test_both_figures_and_the_buffer_stand_in_the_table_where_there_are_some() -> None:
    """Over all classes and masked; `-` for a method that has none of it, and no column where no row has."""
    cells = [cell([0, 1], method=method) for method in ("er", "flynet")]
    with_all = rows(cells[0], {0: 0.8, 1: 0.9}, accuracy_told=0.99, examples_kept=1500)
    plain = rows(cells[1], {0: 0.8, 1: 0.9})
    table = pivot(summarise(manifest(*cells), pd.DataFrame([*with_all, *plain])))
    assert list(table.columns) == ["method", "scale", "r-digits", "masked", "params/task", "examples kept", "s/task"]
    assert table["masked"].tolist() == ["99.00 ± 0.00", "-"]
    assert table["examples kept"].tolist() == ["1,500", "-"]
    table = pivot(summarise(manifest(cells[1]), pd.DataFrame(plain)))
    assert list(table.columns) == ["method", "scale", "r-digits", "params/task", "s/task"]


def test_the_buffer_of_trials_that_are_not_finished_is_in_the_manifest() -> None:
    """As params/task are."""
    asked = cell([0], said={**NEWER, "examples_kept": 200})
    assert pivot(summarise(manifest(asked), frame()))["examples kept"].tolist() == ["200"]


def test_parameters_that_differ_between_benchmarks_are_all_shown() -> None:
    """In the benchmarks' order; where all agree they are given once."""
    cells = [cell([0], benchmark=name) for name in ("small", "large", "large too")]
    counts = (99.0, 1299.0, 1299.0)
    trials = [
        row for item, count in zip(cells, counts, strict=True) for row in rows(item, {0: 0.5}, params_per_task=count)
    ]
    (row,) = pivot(summarise(manifest(*cells), frame(*trials))).to_dict("records")
    assert row["params/task"] == "99 / 1,299"


def test_the_ratio_is_the_last_column_where_there_is_a_reference() -> None:
    """In three digits; once where all benchmarks agree, else in their order."""
    cells = [
        cell([0], said={**NEWER, "ratio": ratio}, method=method, benchmark=benchmark)
        for method, ratios in (("mtl", (1.0, 1.0)), ("batche", (0.034541, 0.016763)))
        for benchmark, ratio in zip(("r-mnist", "p-mnist"), ratios, strict=True)
    ]
    table = pivot(summarise(manifest(*cells), frame()))
    assert list(table.columns) == ["method", "scale", "r-mnist", "p-mnist", "params/task", "ratio"]
    assert table["ratio"].tolist() == ["1", "0.0345 / 0.0168"]


def test_a_method_that_is_not_continual_is_marked_in_its_row() -> None:
    """Behind its label, and nobody else's."""
    cells = [
        cell([0], said={**NEWER, "continual": method != "mtl"}, method=method, benchmark=benchmark)
        for method in ("mtl", "psp")
        for benchmark in ("r-mnist", "p-mnist")
    ]
    summary = summarise(manifest(*cells), frame())
    assert summary["method"].tolist() == ["mtl", "mtl", "psp", "psp"]
    assert summary["continual"].tolist() == [False, False, True, True]
    assert pivot(summary)["method"].tolist() == ["mtl (not continual)", "psp"]


@pytest.mark.parametrize(
    ("sizes", "shown"), [((1, 1), "1.5"), ((4, 4), "1.5 (4)"), ((2, 4), "1.5 (2; 4)"), ((None, None), "1.5")]
)
def test_seconds_say_how_many_tasks_were_learned_at_once(sizes: tuple[int | None, ...], shown: str) -> None:
    """A task's share of a group's time is another figure than that of a task alone; all sizes that occur are named."""
    asked = cell([0, 1])
    trials = [row for seed, size in enumerate(sizes) for row in rows(asked, {seed: 0.5}, group_size=size)]
    table = pivot(summarise(manifest(asked), frame(*trials).astype({"group_size": "Int64"})))
    assert table["s/task"].tolist() == [shown]


def test_variants_have_a_column_only_where_there_are_some() -> None:
    """One variant is enough for the column; otherwise, it would be empty."""
    plain, varied = cell([0]), cell([0], variant="local")
    assert "variant" not in pivot(summarise(manifest(plain), frame())).columns
    table = pivot(summarise(manifest(plain, varied), frame()))
    assert table["variant"].tolist() == ["", "local"]
    assert list(table.columns)[:3] == ["method", "variant", "scale"]


def test_accuracies_are_shown_in_percent() -> None:
    """Two decimals of a percent, for the mean and for the deviation."""
    row = {"n": 3, "asked": 3, "accuracy": 0.981234, "sd": 0.00456}
    assert show_accuracy(row) == "98.12 ± 0.46 (n=3)"


@pytest.mark.parametrize(("count", "text"), [(np.nan, "-"), (99.0, "99"), (268_800.0, "268,800"), (1299.5, "1,300")])
def test_counts_are_shown_with_thousands_apart(count: float, text: str) -> None:
    """Whole numbers; what is not known is a dash."""
    assert show_count(count) == text
