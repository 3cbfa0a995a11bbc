"""Verdicts on the first paper's claims over synthetic rows: confirmed, refuted, or open if rows are missing."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from crwn.benchmarks import PRESETS
from crwn.methods import METHODS
from crwn.trial_spec import TrialSpec
from orchestrator.papers.paper import Bound, Check, Claim, Comparison, Entry, Row, Selectivity, TaskComparison, Trend
from orchestrator.papers.reading import read_paper
from orchestrator.report import claims
from orchestrator.report.claims import Verdict
from orchestrator.store.compatibility import settings_of
from tests.said import NO_COMMON_SEED, differs, several_results

PARAMS = {"neuromodnet": 579.0, "batche": 15_178.0, "supsup": 84_480.0, "psp": 219_648.0, "flynet": 641.0}
PAPER = read_paper("hong2022")
ALL = [row for claim in PAPER.claims for check in claim.checks for row in check.rows]
WIDTHS = ("FC256", "FC512", "FC1024", "FC2048", "FC4096")
FLIES = ("10d", "20d", "30d", "40d")


def row(method: str, scale: str, benchmark: str, settings: dict[str, Any] | None = None) -> Row:
    """A row of the paper's tables."""
    chosen = METHODS[method].spec(**(settings or {}))
    changes = " ".join("pretrained" if value is True else value for value in (settings or {}).values())
    label = f"{method} {changes}".strip()
    return Entry(label=label, method=chosen, training={}).at(scale, benchmark)


class World:
    """Trials that agree with the paper, except for what a test changes."""

    def __init__(self, seeds: tuple[int, ...] = (0, 1)) -> None:
        self.seeds = seeds
        self.trials: list[dict[str, Any]] = []

    def add(self, row: Row, accuracy: float, **changes: Any) -> World:
        """A row of the paper's tables, its tasks' accuracies spread by a hundredth."""
        for seed in self.seeds:
            spec = dataclasses.replace(row.spec, seed=seed)
            self.trials.append(
                {
                    "trial_id": spec.trial_id,
                    "seed": seed,
                    "accuracy": accuracy + seed / 1000,
                    "forgetting": 0.0,
                    "params_per_task": PARAMS.get(row.spec.method.kind, 1.0),
                    "train_seconds_per_task": 1.0 if row.spec.method.kind == "neuromodnet" else 2.0,
                    "settings": settings_of(json.loads(spec.canonical_json())),
                    "final": [accuracy - 0.01, accuracy, accuracy + 0.01],
                    "numerics.device": "cpu",
                    **changes,
                }
            )
        return self

    def verdict(self, number: int) -> Verdict:
        """The verdict on one claim."""
        return claims.verdicts(PAPER, pd.DataFrame(self.trials))[number - 1]


def nmn(scale: str, on: str = "r-mnist", **settings: Any) -> Row:
    """A row of NeuroModNet."""
    return row("neuromodnet", scale, on, settings)


def first_claim(gap: float, params: float = 579.0) -> World:
    """The rows of the first claim: NeuroModNet better than BatchE by this much."""
    world = World()
    for on in ("r-mnist", "p-mnist"):
        world.add(nmn("FC256", on), 0.8 + gap, params_per_task=params).add(row("batche", "FC256", on), 0.8)
    return world


@pytest.mark.parametrize(
    ("gap", "params", "word"),
    [(0.01, 579.0, "confirmed"), (-0.01, 579.0, "refuted"), (0.01, 2000.0, "refuted")],
)
def test_a_claim_is_confirmed_where_every_comparison_holds(gap: float, params: float, word: str) -> None:
    """Better, and at most a tenth of the parameters; the numbers are said."""
    verdict = first_claim(gap, params).verdict(1)
    assert (verdict.word, verdict.missing) == (word, ())
    assert [found.n for found in verdict.evidence] == [2] * 4
    assert f"{100 * gap:+.2f} ± 0.00 points" in verdict.evidence[0].statement
    assert "15,178" in verdict.evidence[1].statement
    assert len(set(verdict.evidence[0].trials)) == 4


def test_a_claim_is_open_only_where_rows_are_missing() -> None:
    """They are named; what can be compared already is."""
    world = World().add(nmn("FC256"), 0.9).add(row("batche", "FC256", "r-mnist"), 0.8)
    verdict = world.verdict(1)
    assert verdict.word == "open"
    assert verdict.missing == ("neuromodnet FC256 on p-mnist", "batche FC256 on p-mnist")
    assert [found.holds for found in verdict.evidence] == [True, True]


def test_evidence_says_how_much_of_it_was_computed_under_more_than_one_code() -> None:
    """It counts, and its numbers are marked where they are shown."""
    world = first_claim(0.2)
    before = world.verdict(1).evidence[0].statement
    world.trials[0]["code_changes"] = "torch 1 -> 2"
    after = world.verdict(1).evidence[0].statement
    assert after == f"{before} (1 of the trials computed by several code versions)"


def test_other_settings_than_the_papers_do_not_count() -> None:
    """Nor another length of training: its trials are not the row's."""
    world = first_claim(0.01)
    for trial in world.trials:
        settings = json.loads(trial["settings"])
        settings["training"]["updates_per_task"] = 7
        trial["settings"] = settings_of(settings)
    assert len(world.verdict(1).missing) == 4


def test_only_common_seeds_are_compared() -> None:
    """Without one there is nothing to compare, nor where a number is missing: open."""
    world = first_claim(0.01)
    world.trials = [t for t in world.trials if not (t["seed"] == 1 and t["params_per_task"] == 579.0)]
    assert [found.n for found in world.verdict(1).evidence] == [1] * 4
    world.trials = [t for t in world.trials if t["params_per_task"] == 579.0 or t["seed"] == 1]
    assert world.verdict(1).word == "open"
    assert NO_COMMON_SEED in world.verdict(1).missing[0]
    nothing = first_claim(float("nan"))
    assert nothing.verdict(1).word == "open"


def test_a_store_without_results_leaves_all_open() -> None:
    """Nine claims, no error."""
    for number in range(1, 10):
        verdict = World().verdict(number)
        assert (verdict.number, verdict.word, verdict.evidence) == (number, "open", ())
        assert verdict.missing


def test_every_row_that_a_claim_names_is_one_that_can_run() -> None:
    """As a sweep that says nothing else asks for it, with the training that is the method's own."""
    for one in ALL:
        spec = one.spec
        plain = TrialSpec(
            method=spec.method,
            benchmark=PRESETS[one.benchmark],
            scale=one.scale,
            seed=0,
            training=spec.method.training(one.scale),
        )
        assert plain.blueprint().params_per_task > 0
        assert settings_of(json.loads(plain.canonical_json())) == one.settings


def test_rows_of_several_kinds_are_not_compared() -> None:
    """Two results at one seed, or from GPU and CPU: open, with the reason; the same result twice counts once."""
    world = first_claim(0.01)
    world.trials += [dict(trial) for trial in world.trials]
    assert world.verdict(1).word == "confirmed"
    world.trials[0] |= {"final": [0.1, 0.2, 0.3]}
    assert world.verdict(1).word == "open"
    assert several_results(0) in world.verdict(1).missing[0]
    mixed = first_claim(0.01)
    mixed.trials[0] |= {"numerics.device": "cuda"}
    assert mixed.verdict(1).word == "open"
    assert differs("numerics.device", "cuda (seed 0)", "cpu (seed") in mixed.verdict(1).missing[0]


def test_each_method_has_its_own_code_and_rows_of_one_method_the_same() -> None:
    """Files of two methods differ, of course; another code of one of them leaves a claim open."""
    world = first_claim(0.01)
    world.trials = [trial | {"code.method": json.loads(trial["settings"])["method"]["kind"]} for trial in world.trials]
    assert world.verdict(1).word == "confirmed"
    world.trials[0]["code.method"] = "edited"
    verdict = world.verdict(1)
    assert verdict.word == "open"
    assert differs("code.method", "edited (seed 0)", "neuromodnet (seed 1)") in verdict.missing[0]


def test_numbers_that_are_not_there_refute_nothing() -> None:
    """An accuracy of a task that is no number leaves its claim open."""
    nothing = float("nan")
    plain, pretrained = nmn("FC4096"), nmn("FC4096", pretrained=True)
    world = World().add(plain, 0.9, final=[nothing, 0.9, 0.95]).add(pretrained, 0.89)
    assert world.verdict(8).word == "open"
    psp, even = row("psp", "FC256", "p-mnist"), row("supsup", "FC256", "p-mnist")
    world = World().add(row("psp", "FC256", "r-mnist"), 0.9).add(psp, 0.8, final=[nothing] * 3).add(even, 0.9)
    assert world.verdict(4).word == "open"


def test_pretraining_is_compared_by_task() -> None:
    """Better on the first two tasks, worse on the whole."""
    plain, pretrained = nmn("FC4096"), nmn("FC4096", pretrained=True)
    world = World().add(plain, 0.9, final=[0.8, 0.9, 0.95]).add(pretrained, 0.89, final=[0.9, 0.91, 0.86])
    verdict = world.verdict(8)
    assert verdict.word == "confirmed"
    assert "task 1 +10.00, task 2 +1.00" in verdict.evidence[1].statement
    world = World().add(plain, 0.9, final=[0.8, 0.9, 0.95]).add(pretrained, 0.89, final=[0.9, 0.89, 0.86])
    assert world.verdict(8).word == "refuted"


def test_unevenness_and_loss_of_psp() -> None:
    """Markedly worse is five points, uneven twice the deviation over tasks."""
    psp, even = row("psp", "FC256", "p-mnist"), row("supsup", "FC256", "p-mnist")
    for accuracy, final, word in (
        (0.8, [0.6, 0.8, 0.95], "confirmed"),
        (0.88, [0.6, 0.8, 0.95], "refuted"),
        (0.8, [0.79, 0.8, 0.81], "refuted"),
    ):
        world = World().add(row("psp", "FC256", "r-mnist"), 0.9)
        assert world.add(psp, accuracy, final=final).add(even, 0.9).verdict(4).word == word


@pytest.mark.parametrize(("gains", "word"), [((3, 2, 1, -1), "confirmed"), ((1, 2, 3, 4), "refuted")])
def test_a_gain_that_shrinks(gains: tuple[int, ...], word: str) -> None:
    """For FlyNet, from width to width; for NeuroModNet it is positive at each."""
    world = World()
    for scale in WIDTHS:
        world.add(nmn(scale), 0.9).add(nmn(scale, modulation="local"), 0.89)
    for scale, gain in zip(FLIES, gains, strict=True):
        world.add(row("flynet", scale, "r-mnist"), 0.8 + gain / 100)
        world.add(row("flynet", scale, "r-mnist", {"modulation": "local"}), 0.8)
    assert world.verdict(6).word == word


def test_forgetting_of_any_amount_refutes() -> None:
    """Exactly nothing is the claim."""
    world = World()
    for one in {str(one): one for one in ALL if one.benchmark in ("r-mnist", "p-mnist")}.values():
        world.add(one, 0.9)
    assert world.verdict(9).word == "confirmed"
    world.trials[0] |= {"forgetting": 1e-9}
    world.trials = [dict(trial, forgetting=1e-9) for trial in world.trials]
    assert world.verdict(9).word == "refuted"


def test_verdicts_are_rows_too() -> None:
    """One a comparison, for the CSV."""
    found = claims.as_frame([first_claim(0.01).verdict(1), World().verdict(7)])
    assert found["verdict"].tolist() == ["confirmed"] * 4 + ["open"]
    assert found["holds"].tolist()[:4] == [True] * 4
    assert dataclasses.asdict(first_claim(0.01).verdict(1).evidence[0])["n"] == 2


# Comparisons that the first paper has not, for those to come


def said(check: Check, world: World) -> tuple[bool, str]:
    """Whether a comparison holds, and its evidence."""
    paper = dataclasses.replace(PAPER, claims=(Claim(says="it", checks=(check,)),))
    (verdict,) = claims.verdicts(paper, pd.DataFrame(world.trials))
    (evidence,) = verdict.evidence
    assert verdict.word == ("confirmed" if evidence.holds else "refuted")
    return evidence.holds, evidence.statement


LEFT, RIGHT = nmn("FC256"), nmn("FC512")
ON = "neuromodnet FC256 on r-mnist", "neuromodnet FC512 on r-mnist"


def two(left: dict[str, Any], right: dict[str, Any]) -> World:
    """Two rows, each with an accuracy and its own values."""
    return World().add(LEFT, 0.9, **left).add(RIGHT, 0.8, **right)


@pytest.mark.parametrize(
    ("quantity", "direction", "by", "times", "holds", "facts"),
    [
        ("accuracy", "lower", 0.0, None, False, ("{0}", "{1}", "+10.00 ± 0.00 points")),
        ("forgetting", "lower", 0.0, None, True, ("forgetting", "{0}", "{1}", "-20.00 ± 0.00 points")),
        ("forgetting", "lower", 0.1, None, True, ("{0}", "{1}", "-20.00 ± 0.00 points", "at most -10 ")),
        ("forgetting", "lower", 0.3, None, False, ("at most -30 ",)),
        ("forgetting", "lower", 0.0, 0.5, True, ("forgetting: {0} 10.00 points", "{1} 30.00", "at most 0.5 ")),
        ("forgetting", "lower", 0.0, 0.25, False, ("at most 0.25 ",)),
        ("examples_kept", "higher", 0.0, None, True, ("{0}: 500 ", "{1}: 200")),
        ("examples_kept", "higher", 300.0, None, True, ("{0}", "{1}", "+300.00 ± 0.00", "at least 300 ")),
        ("examples_kept", "higher", 0.0, 3.0, False, ("{0}: 500 ", "{1}: 200", "at least 3 ")),
        ("spread_over_tasks", "lower", 0.0, None, False, ("{0}", "{1}", "+0.00")),
    ],
)
def test_any_measure_is_compared_in_either_direction(
    quantity: str, direction: Any, by: float, times: float | None, holds: bool, facts: tuple[str, ...]
) -> None:
    """With a margin, a multiple, or neither; the statement has what was asked for."""
    world = two({"forgetting": 0.1, "examples_kept": 500}, {"forgetting": 0.3, "examples_kept": 200})
    check = Comparison(row=LEFT, than=RIGHT, quantity=quantity, direction=direction, by=by, times=times)
    found = said(check, world)
    assert found[0] is holds
    for fact in facts:
        assert fact.format(*ON) in found[1]


def by_seed(row: Row, accuracies: Sequence[float]) -> World:
    """A row whose seeds differ."""
    world = World(tuple(range(len(accuracies)))).add(row, accuracies[0])
    world.trials = [dict(trial, accuracy=accuracies[trial["seed"]]) for trial in world.trials]
    return world


@pytest.mark.parametrize(("gaps", "is_sure"), [((0.1, 0.12, 0.14), True), ((0.01, 0.2, 0.15), False), ((0.1,), False)])
def test_a_sure_difference_has_its_interval_on_one_side(gaps: tuple[float, ...], is_sure: bool) -> None:
    """All differences are positive; by the t distribution over seeds, the mean may be none. One seed shows none."""
    world = by_seed(LEFT, [0.5 + gap for gap in gaps])
    world.trials += by_seed(RIGHT, [0.5] * len(gaps)).trials
    check = Comparison(row=LEFT, than=RIGHT, quantity="accuracy", direction="higher", by=0.0, times=None)
    assert said(check, world)[0]
    holds, statement = said(dataclasses.replace(check, surely=True), world)
    assert holds == is_sure
    if len(gaps) > 1:
        low, high = stats.t.interval(0.95, len(gaps) - 1, loc=np.mean(gaps), scale=stats.sem(gaps))
        assert f"(95 % interval {100 * low:+.2f} to {100 * high:+.2f})" in statement


@pytest.mark.parametrize(
    ("direction", "by", "holds"), [("higher", 0.0, True), ("higher", 0.4, False), ("lower", 0.0, False)]
)
def test_tasks_of_a_row_are_compared_with_others(direction: Any, by: float, holds: bool) -> None:
    """Means over tasks, paired by seed: (.9 + .7) / 2 - (.5 + .4) / 2 = .35."""
    world = two({"final": [0.9, 0.5, 0.7, 0.4]}, {})
    check = Selectivity(row=LEFT, tasks=(1, 3), others=(2, -1), direction=direction, by=by, surely=False)
    found = said(check, world)
    assert found[0] is holds
    assert f"{ON[0]}, tasks 1, 3 against 2, -1: +35.00 ± 0.00 points" in found[1]


def test_tasks_are_counted_from_either_end() -> None:
    """The last one is -1; each must be on the claim's side."""
    world = two({"final": [0.9, 0.5, 0.7]}, {"final": [0.8, 0.9, 0.8]})
    check = TaskComparison(row=LEFT, than=RIGHT, direction="lower", tasks=(2, -1))
    assert said(check, world) == (True, f"{ON[0]} against {ON[1]}: task 2 -40.00, task 3 -10.00 points")
    assert not said(dataclasses.replace(check, tasks=(1, -1)), world)[0]


@pytest.mark.parametrize(
    ("quantity", "relation", "to", "holds", "statement"),
    [
        (
            "accuracy",
            "higher",
            0.9,
            True,
            "accuracy 90.05 points (95 % interval 89.41 to 90.69), at least 90 required",
        ),
        ("accuracy", "higher", 0.95, False, "at least 95 required"),
        ("forgetting", "lower", 0.1, True, "forgetting 10 points, at most 10 required"),
        ("forgetting", "equal", 0.1, True, "forgetting 0 points away from 10 at most"),
        ("examples_kept", "equal", 400.0, False, "examples kept 100 away from 400 at most"),
    ],
)
def test_a_row_is_held_against_a_number(quantity: str, relation: Any, to: float, holds: bool, statement: str) -> None:
    """The mean for a bound, every seed for equality."""
    check = Bound(row=LEFT, quantity=quantity, relation=relation, to=to)
    found = said(check, two({"forgetting": 0.1, "examples_kept": 500}, {}))
    assert found[0] is holds
    assert found[1].startswith(f"{ON[0]}: ")
    assert found[1].endswith(statement)


def test_a_trend_over_unlike_rows_names_them() -> None:
    """Of another measure it says which; rising is the other way round than falling."""
    gains = ((LEFT, RIGHT), (RIGHT, LEFT))
    check = Trend(gains=gains, quantity="forgetting", direction="rising")
    world = two({"forgetting": 0.1}, {"forgetting": 0.3})
    assert said(check, world) == (True, "gain in forgetting of neuromodnet: FC256 -20.00, FC512 +20.00 points")
    assert not said(dataclasses.replace(check, direction="falling"), world)[0]
    other = row("supsup", "FC256", "r-mnist")
    mixed = dataclasses.replace(check, gains=((LEFT, RIGHT), (other, LEFT)))
    assert f"{ON[0]} -20.00, {other} +0.00" in said(mixed, world.add(other, 0.5, forgetting=0.1))[1]


def test_a_measure_that_no_trial_has_leaves_a_claim_open() -> None:
    """Nothing is refuted by what was not tested."""
    check = Comparison(row=LEFT, than=RIGHT, quantity="forward_transfer", direction="higher", by=0.0, times=None)
    paper = dataclasses.replace(PAPER, claims=(Claim(says="it", checks=(check,)),))
    (verdict,) = claims.verdicts(paper, pd.DataFrame(two({}, {}).trials))
    assert verdict.word == "open"
    assert NO_COMMON_SEED in verdict.missing[0]
