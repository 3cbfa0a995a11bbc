"""A sweep's grid: which benchmarks, seeds and groups belong together, and nothing twice."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from orchestrator.sweeps.sweep import Sweep
from tests.orchestrator.sweeps.texts import Found

Load = Callable[..., Sweep]
Faults = Callable[..., list[Found]]


@pytest.mark.parametrize(
    "parts",
    [
        {
            "seeds": str([*range(1000)]),
            "benchmarks": "{" + ", ".join(f"b{i}: {{preset: r-digits}}" for i in range(300)),
        },
        {
            "methods": f"{{mtl: {{scales: {[f'FC{i}' for i in range(1, 501)]}, variants: {{"
            + ", ".join(f"v{i}: " for i in range(500))
            + "}}"
        },
    ],
)
def test_lists_that_make_more_trials_than_can_be_listed_are_refused(faults: Faults, parts: dict[str, str]) -> None:
    """A few kilobytes of lists may ask for millions: that is said before they are made."""
    closed = {part: value + "}" * (value.count("{") - value.count("}")) for part, value in parts.items()}
    assert ("too-many-trials",) in [fault.codes for fault in faults(**closed)]


def test_an_entry_may_be_for_some_benchmarks(load: Load) -> None:
    """Its trials are on those alone, in the order of the file; the other entries' on all."""
    methods = "{supsup: {scales: [FC16]}, flynet: {scales: [1d], benchmarks: [p-digits]}}"
    cells = load(benchmarks="[r-digits, p-digits]", methods=methods).cells
    asked = [(cell.method, cell.benchmark) for cell in cells]
    assert asked == [("supsup", "r-digits"), ("supsup", "p-digits"), ("flynet", "p-digits")]


@pytest.mark.parametrize(
    ("benchmarks", "place", "code", "facts"),
    [
        ("[r-digit]", "[0]", "unknown-name", ["'r-digit'", "'r-digits'"]),
        ("[r-digits, r-digits]", "[1]", "same-trials-twice", ["'r-digits'"]),
        ("[]", "", "empty", []),
        ("r-digits", "", "wrong-type", ["'r-digits'"]),
    ],
)
def test_an_entrys_benchmarks_are_the_sweeps(
    faults: Faults, benchmarks: str, place: str, code: str, facts: list[str]
) -> None:
    """A label that the sweep does not have, or has once, is refused with its place."""
    (found,) = faults(methods=f"{{supsup: {{scales: [FC16], benchmarks: {benchmarks}}}}}")
    assert (found.where, found.codes) == (f"line 3, methods.supsup.benchmarks{place}", (code,))
    assert all(fact in found.message for fact in facts)


@pytest.mark.parametrize(
    ("parts", "place"),
    [
        ({"seeds": "[0, 1, 0]"}, "line 1, seeds[2]"),
        ({"benchmarks": "[r-digits, p-digits, r-digits]"}, "line 2, benchmarks[2]"),
        ({"benchmarks": "{r-digits: , other: {preset: r-digits}}"}, "line 3, methods.neuromodnet"),
        ({"benchmarks": "{r-digits: , other: {kind: rotated, base: digits}}"}, "line 3, methods.neuromodnet"),
        ({"methods": "{supsup: {scales: [FC16, FC32, FC16]}}"}, "line 3, methods.supsup.scales[2]"),
        ({"methods": "{supsup: {scales: [FC16]}, x: {method: supsup, scales: [FC16]}}"}, "line 3, methods.x"),
        ({"methods": "{flynet: {scales: [1d], variants: {a: , b: {}}}}"}, "line 3, methods.flynet.variants.b"),
        (
            {"methods": "{flynet: {scales: [1d], variants: {a: , b: {settings: {inhibition: 1}}}}}"},
            "line 3, methods.flynet.variants.b",
        ),
    ],
)
def test_asking_for_a_trial_twice_is_refused(faults: Faults, parts: dict[str, str], place: str) -> None:
    """Equal trials under two names would count one result twice."""
    (fault,) = faults(**parts)
    assert (fault.where, fault.codes) == (place, ("same-trials-twice",))


def test_what_is_asked_for_twice_is_named(faults: Faults) -> None:
    """Both places are in the message."""
    (fault,) = faults(methods="{flynet: {scales: [1d], variants: {a: , b: {}}}}")
    for place in ("methods.flynet.variants.b at 1d on r-digits", "methods.flynet.variants.a at 1d on r-digits"):
        assert place in fault.message


def test_group_sizes_that_a_method_cannot_have_are_refused_at_once(faults: Faults) -> None:
    """Each at its own line and once, whatever the number of scales: PSP learns one at a time, MTL all, nobody none."""
    text = """\
seeds: [0]
benchmarks: {few: {preset: r-digits, num_tasks: 4}, many: {preset: r-digits, num_tasks: 6}}
methods:
  psp:
    scales: [FC16, FC32]
    group_size: 2
  mtl:
    scales: [FC16, FC32]
    group_size: 3
  neuromodnet:
    scales: [FC16]
    group_size: 0
  supsup:
    group_size: all
    scales: [FC16]
  flynet:
    scales: [1d]
    group_size: 100
reference: mtl
"""
    expected = [
        ("line 6, methods.psp.group_size", "group-not-one", "expected 1, given 2"),
        ("line 9, methods.mtl.group_size", "group-not-all", "expected 4, given 3"),
        ("line 9, methods.mtl.group_size", "group-not-all", "expected 6, given 3"),
        ("line 12, methods.neuromodnet.group_size", "too-small", "given 0"),
        ("line 14, methods.supsup.group_size", "wrong-type", "'all'"),
        ("line 19, reference", "reference-is-several", "'mtl'"),
    ]
    for fault, (where, code, fact) in zip(faults(text), expected, strict=True):
        assert (fault.where, fault.codes) == (where, (code,))
        assert fact in fault.message


def test_group_sizes_are_those_of_the_entries(load: Load) -> None:
    """By trial, for all of its seeds and benchmarks; without one the rule decides, and one task at a time is PSP's."""
    sweep = load(
        seeds="[0, 1]",
        benchmarks="{r-digits: {num_tasks: 4}, p-digits: {num_tasks: 4}}",
        methods="{psp: {scales: [FC16], group_size: 1}, mtl: {scales: [FC16], group_size: 4}, supsup: {scales: [FC16]},"
        " neuromodnet: {scales: [FC16, FC32], group_size: 2}}",
    )
    sizes = {"psp": 1, "mtl": 4, "neuromodnet": 2}
    assert sweep.group_sizes == {
        trial.trial_id: sizes[trial.method.kind] for trial in sweep.trials if trial.method.kind != "supsup"
    }
    assert len(sweep.group_sizes) == 16


def test_methods_that_a_scenario_does_not_fit_are_refused_at_once(faults: Faults) -> None:
    """With both names and what would work, together with other faults, once for all scales."""
    found = faults(
        benchmarks="[r-digits, split-digits]",
        methods="{finetune: {scales: [FC16, FC32]}, stl: {scales: [FC16], group_size: 0}}",
    )
    assert len(found) == 2
    fault = next(fault for fault in found if "methods.finetune" in fault.where)
    assert fault.codes == ("labels-not-shared",)
    for part in ("line 3", "finetune", "'split'", "stl"):
        assert part in fault


WRONG_IN_MANY_WAYS = """\
seeds: [0]
benchmarks:
  classes: {preset: seq-digits}
  stream: {preset: digits-360}
  odd: {kind: sequential, base: digits, num_tasks: 3}
methods:
  er: {scales: [FC16, FC32], benchmarks: [classes], settings: {buffer: 1438}}
  agem: {scales: [FC16], benchmarks: [classes], settings: {buffer: 0}}
  ewc: {scales: [FC16], benchmarks: [stream]}
  stl: {scales: [FC16], benchmarks: [classes]}
  joint: {scales: [FC16], benchmarks: [stream], training: {updates_per_task: 9}}
  finetune: {scales: [FC16], training: {epochs_per_task: 2, updates_per_task: 7}}
"""


def test_all_that_a_scenario_does_not_allow_is_told_at_once(faults: Faults) -> None:
    """Each where it stands, with both names and what would work; nothing is told twice."""
    expected = (
        ("line 5, benchmarks.odd", "classes-do-not-divide", "num_tasks", "1, 2, 5, 10", "given 3"),
        ("line 7, methods.er", "buffer-larger-than-data", "1437", "given 1438"),
        ("line 8, methods.agem.settings.buffer", "too-small", "given 0"),
        ("line 9, methods.ewc", "scenario-tells-too-little", "ewc", "'general'", "'turning'", "'domain' or 'class'"),
        ("line 10, methods.stl", "scenario-tells-too-little", "stl", "'class'", "'sequential'", "'task'"),
        ("line 11, methods.joint", "length-of-a-stream", "updates_per_task", "'turning'", "given 9"),
        ("line 12, methods.finetune.training", "epochs-beside-updates", "epochs_per_task", "updates_per_task: 7"),
    )
    found = faults(WRONG_IN_MANY_WAYS)
    assert len(found) == len(expected)
    for fault, (where, code, *facts) in zip(found, expected, strict=True):
        assert (fault.where, fault.codes) == (where, (code,))
        assert all(fact in fault.message for fact in facts)


def test_what_a_scenario_allows_is_planned(load: Load) -> None:
    """Nobody need undo a method's own epochs on a stream, and as large a buffer as there are images is one."""
    sweep = load(
        benchmarks="[seq-digits, digits-360, p-digits-domain]",
        methods="{finetune: {scales: [FC16]}, er: {scales: [FC16], settings: {buffer: 1304}}, joint: {scales: [FC16]}}",
    )
    assert len(sweep.trials) == 9
