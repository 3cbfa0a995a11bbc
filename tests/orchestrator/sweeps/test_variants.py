"""The entries under `methods`: variants with their settings, and what a method cannot do."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from crwn.benchmarks import PRESETS
from crwn.data.base import Normalisation
from crwn.data.digits import DIGITS
from crwn.methods.neuromodnet import NeuroModNetSpec
from crwn.spec import ProblemShape, kind_field
from orchestrator.errors import UserError
from orchestrator.sweeps import reading
from orchestrator.sweeps.reading import load_sweep
from orchestrator.sweeps.sweep import Sweep
from tests.orchestrator.sweeps.texts import Found
from tests.refusals import refused

SweepFile = Callable[..., Path]
Load = Callable[..., Sweep]
Faults = Callable[..., list[Found]]

SCALES = ["FC256", "1d", "nf10"]


def test_a_label_names_its_method(load: Load) -> None:
    """One method may stand under several labels, which are the names in the table."""
    sweep = load(
        methods="{small: {method: flynet, scales: [1d]}, large: {method: flynet, scales: [2d]}, "
        "supsup: {method: neuromodnet, scales: [FC16]}}"
    )
    assert [(cell.method, cell.trials[0].method.kind, cell.scale) for cell in sweep.cells] == [
        ("small", "flynet", "1d"),
        ("large", "flynet", "2d"),
        ("supsup", "neuromodnet", "FC16"),
    ]


def test_the_nearer_setting_wins(load: Load) -> None:
    """A variant's training goes over its method's, that over the sweep's, that over the paper's; others stay."""
    sweep = load(
        training="{learning_rate: 0.1, batch_size: 32, updates_per_task: 7}",
        methods="{supsup: {scales: [FC16]}, neuromodnet: {scales: [FC16], training: {learning_rate: 0.2, "
        "batch_size: 64}, variants: {plain: {}, own: {training: {learning_rate: 0.3}}}}}",
    )
    found = [(trial.training.learning_rate, trial.training.batch_size) for trial in sweep.trials]
    assert found == [(0.1, 32), (0.2, 64), (0.3, 64)]
    assert {trial.training.updates_per_task for trial in sweep.trials} == {7}


def test_a_variants_settings_go_over_its_methods(load: Load) -> None:
    """Settings that a variant leaves alone are its method's, not the paper's."""
    sweep = load(
        methods="{neuromodnet: {scales: [FC16], settings: {initial_strength: 0.5, weight_gain: 1}, "
        "variants: {a: , b: {settings: {weight_gain: 3}}}}}"
    )
    assert [trial.method for trial in sweep.trials] == [
        NeuroModNetSpec(initial_strength=0.5, weight_gain=1.0),
        NeuroModNetSpec(initial_strength=0.5, weight_gain=3.0),
    ]
    assert [cell.variant for cell in sweep.cells] == ["a", "b"]


def test_an_ablation_names_its_base(load: Load) -> None:
    """The manifest says in every cell of the entry which variant the others are compared with, and only there."""
    sweep = load(
        methods="{supsup: {scales: [FC16]}, neuromodnet: {scales: [FC16], base: b, "
        "variants: {a: {settings: {modulation: local}}, b: {}}}}"
    )
    assert [cell.base for cell in sweep.manifest().cells] == [None, "b", "b"]
    written = json.loads(sweep.manifest().to_json_bytes())
    assert ["base" in cell for cell in written["cells"]] == [False, True, True]


@pytest.mark.parametrize(
    ("entry", "code", "fact"),
    [
        ("base: bb, variants: {ab: , b: {settings: {inhibition: 0.5}}}", "unknown-name", "'bb'"),
        ("base: a", "base-without-variants", ""),
        ("base: a, variants: {a: }", "base-alone", "'a'"),
        ("base: [a], variants: {a: , b: {settings: {inhibition: 0.5}}}", "wrong-type", "['a']"),
    ],
)
def test_a_base_is_one_of_several_variants(load: Load, entry: str, code: str, fact: str) -> None:
    """Anything else is a fault at its own place."""
    with refused(UserError, code, says=["methods.flynet.base: ", fact]):
        load(methods="{flynet: {scales: [10d], " + entry + "}}")


@pytest.mark.parametrize(
    ("method", "scale", "examples"),
    [
        ("neuromodnet", "10d", SCALES),
        ("neuromodnet", "FC0", SCALES),
        ("supsup", "fc16", SCALES),
        ("flynet", "FC256", ["10d", "40d"]),
        ("flynet", "0d", ["10d", "40d"]),
    ],
)
def test_a_scale_of_another_method_is_refused(faults: Faults, method: str, scale: str, examples: list[str]) -> None:
    """FlyNet's scales are no other's; the message shows what a scale of this method looks like."""
    (found,) = faults(methods=f"{{{method}: {{scales: [{scale}]}}}}")
    assert (found.where, found.codes) == (f"line 3, methods.{method}.scales[0]", ("unknown-scale",))
    assert all(fact in found.message for fact in (*examples, f"given {scale!r}"))


def test_an_adaptive_rate_is_a_resnets_own(load: Load) -> None:
    """A method's training follows from the scale's family; what the file says goes over each."""
    trials = load(
        benchmarks="[split-digits]", methods="{stl: {scales: [FC16, 1d], training: {updates_per_task: 7}}}"
    ).trials
    found = {(trial.scale, trial.training.optimizer, trial.training.updates_per_task) for trial in trials}
    assert found == {("FC16", "rmsprop", 7), ("1d", "adam", 7)}


def test_a_faulty_scale_has_its_own_line(sweep_file: SweepFile) -> None:
    """In a long list it is the scale that must be found, not the method."""
    text = "seeds: [0]\nbenchmarks: [r-digits]\nmethods:\n  supsup:\n    scales:\n      - FC16\n      - 10d\n"
    with refused(UserError, "unknown-scale", says="line 7, methods.supsup.scales[1]: "):
        load_sweep(sweep_file(text))


@pytest.mark.parametrize(
    ("entry", "place", "code", "fact"),
    [
        (
            "{scales: [FC16], scale: [FC32]}",
            ".scale",
            "unknown-key",
            "base, benchmarks, group_size, method, network, scales, settings, training",
        ),
        ("{scales: [FC16], settings: {kind: flynet}}", ".settings.kind", "unknown-key", "context_high"),
        ("{scales: [FC16], settings: {modulation: 3}}", ".settings.modulation", "unknown-name", "'local+global'"),
        ("{scales: [FC16], settings: {modulation: lcoal}}", ".settings.modulation", "unknown-name", "global, local"),
        ("{scales: [FC16], settings: {context_low: 2}}", ".settings", "range-inverted", "context_high (1.0)"),
        ("{scales: [FC16], variants: {a: {scales: [FC1]}}}", ".variants.a.scales", "unknown-key", "settings"),
        (
            "{scales: [FC16], variants: {a: {settings: {gain: 1}}}}",
            ".variants.a.settings.gain",
            "unknown-key",
            "'gain'",
        ),
        (
            "{scales: [FC16], variants: {a: {training: {batch_size: 0}}}}",
            ".variants.a.training.batch_size",
            "too-small",
            "given 0",
        ),
    ],
)
def test_a_setting_that_does_not_fit_is_refused(faults: Faults, entry: str, place: str, code: str, fact: str) -> None:
    """A method's entry, its settings and its variants are checked by name and value."""
    (found,) = faults(methods=f"{{neuromodnet: {entry}}}")
    assert (found.where, found.codes) == (f"line 3, methods.neuromodnet{place}", (code,))
    assert fact in found.message


def test_a_method_without_settings_says_so(faults: Faults) -> None:
    """Where nothing can be set, an empty list of names would look broken."""
    (fault,) = faults(methods="{supsup: {scales: [FC16], settings: {gain: 1}}}")
    assert (fault.where, fault.codes) == ("line 3, methods.supsup.settings.gain", ("unknown-key",))
    assert " of ;" not in fault


def test_what_a_method_cannot_do_on_a_benchmark_is_refused(faults: Faults) -> None:
    """A hidden unit of FlyNet must sum at least one pixel, whatever the images' size."""
    (fault,) = faults(methods="{flynet: {scales: [10d], settings: {connectivity: 0.001}}}")
    assert fault.codes == ("setting-refused",)
    assert all(fact in fault for fact in ("connectivity: ", "1/64", "given 0.001"))


@pytest.mark.parametrize(
    "methods",
    [
        "{flynet: {scales: [1d], variants: {a: , b: {settings: {modulation: lcoal}}}}}",
        "{flynet: {scales: [1d], variants: {a: , b: {training: {batch_size: 0}}}}}",
        "{flynet: {scales: [1d], variants: {a: , b: {setings: {}}}}}",
        "{flynet: {scales: [1d]}, b: {method: flynet, scales: [1d], settings: {modulation: lcoal}}}",
    ],
)
def test_an_entry_with_a_faulty_override_is_not_called_a_repeated_one(faults: Faults, methods: str) -> None:
    """What was left out of it for its faults is what tells it from the plain one."""
    (fault,) = faults(methods=methods)
    assert fault.codes != ("same-trials-twice",)


@dataclass(frozen=True, slots=True, kw_only=True)
class ColourSpec:
    """A benchmark of colour images that exists on paper only."""

    kind: str = kind_field("colour")
    base: str = "digits"
    validation: int = 0

    def problem(self) -> ProblemShape:
        return ProblemShape(input_shape=(3, 8, 8), num_classes=10, num_tasks=2)

    def normalisation(self) -> Normalisation:
        return DIGITS.normalisation


@pytest.mark.parametrize(
    ("training", "expected"),
    [
        ("{}", (1000, 1)),
        ("{updates_per_task: 7}", (7, 0)),
        ("{epochs_per_task: 3}", (1000, 3)),
        ("{learning_rate: 0.5}", (1000, 1)),
    ],
)
def test_updates_or_epochs_take_the_place_of_a_methods_own(
    load: Load, training: str, expected: tuple[int, int]
) -> None:
    """Giving one of them, for all methods or for one, replaces the other."""
    entry = "finetune: {scales: [FC16]"
    for sweep in (
        load(methods=f"{{{entry}}}}}", training=training),
        load(methods=f"{{{entry}, training: {training}}}}}"),
        load(methods=f"{{{entry}, training: {training}}}}}", training="{updates_per_task: 5, batch_size: 4}")
        if "per_task" in training
        else load(methods=f"{{{entry}, variants: {{a: {{training: {training}}}}}}}}}"),
    ):
        (trial,) = sweep.trials
        assert (trial.training.updates_per_task, trial.training.epochs_per_task) == expected


def test_updates_beside_epochs_are_refused(faults: Faults) -> None:
    """In one place they say two things, whichever of them a method has of its own."""
    both = "{updates_per_task: 7, epochs_per_task: 2}"
    found = faults(
        methods=f"{{finetune: {{scales: [FC16], training: {both}}}, stl: {{scales: [FC16], training: {both}}}}}",
        training=both,
    )
    assert len(found) == 3
    for line, place in zip(
        found, ("line 4, training", "line 3, methods.finetune", "line 3, methods.stl"), strict=False
    ):
        assert line.codes == ("epochs-beside-updates",)
        assert any(place in other for other in found)


def test_flynet_on_images_with_channels_is_refused(load: Load, faults: Faults, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its inputs are a fly's: one channel. The message says what to do; other methods may learn the benchmark."""
    monkeypatch.setattr(reading, "PRESETS", {**PRESETS, "colour": ColourSpec()})
    assert load(benchmarks="[colour]").trials[0].blueprint().params_per_task == 3 * 64 + 16 + 16 + 3
    (fault,) = faults(benchmarks="[r-digits, colour]", methods="{flynet: {scales: [10d, 20d]}}")
    assert (fault.where, fault.codes) == ("line 3, methods.flynet", ("setting-refused",))
    assert all(fact in fault.message for fact in ("FlyNet", "1 channel", "given 3"))


def test_pretraining_for_no_other_task_is_refused(load: Load, faults: Faults) -> None:
    """The first task only prepares the others; the variant is named, and one that is not pretrained may be there."""
    benchmarks = "{r-digits: {num_tasks: %d}}"
    methods = "{neuromodnet: {scales: [FC16], variants: {random: , pretrained: {settings: {pretrained: true}}}}}"
    (fault,) = faults(benchmarks=benchmarks % 1, methods=methods)
    assert (fault.where, fault.codes) == ("line 3, methods.neuromodnet.variants.pretrained", ("setting-refused",))
    assert all(fact in fault.message for fact in ("pretrained: ", "2 tasks", "given 1"))
    assert [cell.variant for cell in load(benchmarks=benchmarks % 2, methods=methods).cells] == ["random", "pretrained"]


@pytest.mark.parametrize(
    ("method", "setting", "has"),
    [
        ("psp", "modulation: local", ""),
        ("mtl", "modulation: local", "weight_gain;"),
        ("batche", "pretrained: true", "first_task_rate;"),
    ],
)
def test_a_variant_that_a_method_lacks_is_refused(faults: Faults, method: str, setting: str, has: str) -> None:
    """A setting of another method is no setting of this one; what it has is listed."""
    (found,) = faults(methods=f"{{{method}: {{scales: [FC16], variants: {{own: {{settings: {{{setting}}}}}}}}}}}")
    name = setting.partition(":")[0]
    assert (found.where, found.codes) == (f"line 3, methods.{method}.variants.own.settings.{name}", ("unknown-key",))
    assert all(fact in found.message for fact in (has, repr(name)))
