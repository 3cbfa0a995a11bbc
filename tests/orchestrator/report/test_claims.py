"""Verdicts over rows that are made up: confirmed, refuted, and open only where rows are missing."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pandas as pd
import pytest

from crwn.benchmarks import PRESETS
from crwn.methods import METHODS
from crwn.spec import TrialSpec
from orchestrator.report import claims
from orchestrator.report.claims import Row, Verdict
from orchestrator.store.compatibility import settings_of

PARAMS = {"neuromodnet": 579.0, "batche": 15_178.0, "supsup": 84_480.0, "psp": 219_648.0, "flynet": 641.0}
ALL = [row for _, checks in claims._claims() for check in checks for row in check.rows]


def spec_of(row: Row) -> TrialSpec:
    """Of a row's trial at seed 0, as a sweep that says nothing else makes it."""
    settings = METHODS[row.method].spec(**row.settings)
    return TrialSpec(
        method=settings,
        benchmark=PRESETS[row.benchmark],
        scale=row.scale,
        seed=0,
        training=settings.training(row.scale),
    )


class World:
    """Trials that are as the paper says, but for what a test changes."""

    def __init__(self, seeds: tuple[int, ...] = (0, 1)) -> None:
        self.seeds = seeds
        self.trials: list[dict[str, Any]] = []

    def add(self, row: Row, accuracy: float, **changes: Any) -> World:
        """A row of the paper's tables, its tasks' accuracies spread by a hundredth."""
        for seed in self.seeds:
            spec = dataclasses.replace(spec_of(row), seed=seed)
            self.trials.append(
                {
                    "trial_id": spec.trial_id,
                    "seed": seed,
                    "accuracy": accuracy + seed / 1000,
                    "forgetting": 0.0,
                    "params_per_task": PARAMS.get(row.method, 1.0),
                    "train_seconds_per_task": 1.0 if row.method == "neuromodnet" else 2.0,
                    "settings": settings_of(json.loads(spec.canonical_json())),
                    "final": [accuracy - 0.01, accuracy, accuracy + 0.01],
                    "numerics.device": "cpu",
                    **changes,
                }
            )
        return self

    def verdict(self, number: int) -> Verdict:
        """Of one claim."""
        return claims.verdicts(pd.DataFrame(self.trials))[number - 1]


def nmn(scale: str, on: str = "r-mnist", **settings: Any) -> Row:
    """A row of NeuroModNet."""
    return Row("neuromodnet", scale, on, settings)


def first_claim(gap: float, params: float = 579.0) -> World:
    """What the first claim needs: NeuroModNet better than BatchE by so much."""
    world = World()
    for on in ("r-mnist", "p-mnist"):
        world.add(nmn("FC256", on), 0.8 + gap, params_per_task=params).add(Row("batche", "FC256", on), 0.8)
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
    world = World().add(nmn("FC256"), 0.9).add(Row("batche", "FC256", "r-mnist"), 0.8)
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
    assert after == f"{before} (1 of the trials computed under more than one code)"


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
    assert "with numbers at a common seed" in world.verdict(1).missing[0]
    nothing = first_claim(float("nan"))
    assert nothing.verdict(1).word == "open"


def test_a_store_without_results_leaves_all_open() -> None:
    """Nine claims, no error."""
    for number in range(1, 10):
        verdict = World().verdict(number)
        assert (verdict.number, verdict.word, verdict.evidence) == (number, "open", ())
        assert verdict.missing


def test_every_row_that_a_claim_names_is_one_that_can_run() -> None:
    """As `crwn plan` on the paper's sweeps knows them."""
    for row in ALL:
        assert spec_of(row).blueprint().params_per_task > 0
        assert settings_of(json.loads(spec_of(row).canonical_json())) == row.key


def test_rows_of_several_kinds_are_not_compared() -> None:
    """Two results at one seed, or a GPU's beside a CPU's: open, and said why; the same result twice is one."""
    world = first_claim(0.01)
    world.trials += [dict(trial) for trial in world.trials]
    assert world.verdict(1).word == "confirmed"
    world.trials[0] |= {"final": [0.1, 0.2, 0.3]}
    assert world.verdict(1).word == "open"
    assert "several results at seed 0" in world.verdict(1).missing[0]
    mixed = first_claim(0.01)
    mixed.trials[0] |= {"numerics.device": "cuda"}
    assert mixed.verdict(1).word == "open"
    assert "numerics.device is cuda (seed 0), cpu (seed" in mixed.verdict(1).missing[0]


def test_numbers_that_are_not_there_refute_nothing() -> None:
    """An accuracy of a task that is no number leaves its claim open."""
    nothing = float("nan")
    plain, pretrained = nmn("FC4096"), nmn("FC4096", pretrained=True)
    world = World().add(plain, 0.9, final=[nothing, 0.9, 0.95]).add(pretrained, 0.89)
    assert world.verdict(8).word == "open"
    psp, even = Row("psp", "FC256", "p-mnist"), Row("supsup", "FC256", "p-mnist")
    world = World().add(Row("psp", "FC256", "r-mnist"), 0.9).add(psp, 0.8, final=[nothing] * 3).add(even, 0.9)
    assert world.verdict(4).word == "open"


def test_pretraining_is_compared_by_task() -> None:
    """Better on the first two tasks, worse on the whole."""
    plain, pretrained = nmn("FC4096"), nmn("FC4096", pretrained=True)
    world = World().add(plain, 0.9, final=[0.8, 0.9, 0.95]).add(pretrained, 0.89, final=[0.9, 0.91, 0.86])
    verdict = world.verdict(8)
    assert verdict.word == "confirmed"
    assert "task 1 +10.00, task 2 +1.00 points" in verdict.evidence[1].statement
    world = World().add(plain, 0.9, final=[0.8, 0.9, 0.95]).add(pretrained, 0.89, final=[0.9, 0.89, 0.86])
    assert world.verdict(8).word == "refuted"


def test_unevenness_and_loss_of_psp() -> None:
    """Markedly worse is five points, uneven twice the deviation over tasks."""
    psp, even = Row("psp", "FC256", "p-mnist"), Row("supsup", "FC256", "p-mnist")
    for accuracy, final, word in (
        (0.8, [0.6, 0.8, 0.95], "confirmed"),
        (0.88, [0.6, 0.8, 0.95], "refuted"),
        (0.8, [0.79, 0.8, 0.81], "refuted"),
    ):
        world = World().add(Row("psp", "FC256", "r-mnist"), 0.9)
        assert world.add(psp, accuracy, final=final).add(even, 0.9).verdict(4).word == word


@pytest.mark.parametrize(("gains", "word"), [((3, 2, 1, -1), "confirmed"), ((1, 2, 3, 4), "refuted")])
def test_a_gain_that_shrinks(gains: tuple[int, ...], word: str) -> None:
    """For FlyNet, from width to width; for NeuroModNet it is positive at each."""
    world = World()
    for scale in claims.WIDTHS:
        world.add(nmn(scale), 0.9).add(nmn(scale, modulation="local"), 0.89)
    for scale, gain in zip(claims.FLIES, gains, strict=True):
        world.add(Row("flynet", scale, "r-mnist"), 0.8 + gain / 100)
        world.add(Row("flynet", scale, "r-mnist", {"modulation": "local"}), 0.8)
    assert world.verdict(6).word == word


def test_forgetting_of_any_amount_refutes() -> None:
    """Exactly nothing is the claim."""
    rows = [row for row in ALL if row.benchmark in ("r-mnist", "p-mnist")]
    world = World()
    for row in dict.fromkeys(map(str, rows)):
        world.add(next(other for other in rows if str(other) == row), 0.9)
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
