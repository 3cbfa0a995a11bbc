"""Sweeps: a YAML file in, trials out, or all of its faults."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from crwn.benchmarks import PRESETS
from crwn.benchmarks.permuted import PermutedSpec
from crwn.benchmarks.rotated import RotatedSpec
from crwn.data import BASE_SETS
from crwn.data.base import Normalisation
from crwn.data.digits import DIGITS
from crwn.methods import METHODS
from crwn.methods.flynet import FlyNetSpec
from crwn.methods.neuromodnet import NeuroModNetSpec
from crwn.methods.supsup import SupSupSpec
from crwn.spec import ProblemShape, TrainingSpec, TrialSpec, kind_field
from orchestrator.errors import UserError
from orchestrator.store.manifests import Manifest
from orchestrator.sweeps import sweep as sweep_module
from orchestrator.sweeps.sweep import Resources, Sweep, load_sweep

SweepFile = Callable[..., Path]
Load = Callable[..., Sweep]
Faults = Callable[..., list[str]]

# The grammar in the module's docstring, word for word but for the comments.
SCALES = "scale: expected one such as FC256 or FC4096, or, for a ResNet-18, 1d or 6d, nf10 or nf64; "
PRESET_NAMES = f"expected one of {', '.join(sorted(PRESETS))}"

EXAMPLE = """\
name: example
store: runs/shared
seeds: [0, 1, 2]
benchmarks:
  r-mnist:
  six rotations: {preset: r-mnist, num_tasks: 6}
  own: {kind: permuted, base: digits, num_tasks: 12}
methods:
  supsup: {scales: [FC256]}
  neuromodnet:
    scales: [FC256, FC1024]
    settings: {initial_strength: 1.0}
    training: {learning_rate: 0.01}
    group_size: 8
    variants:
      both: {}
      local: {settings: {modulation: local}}
training: {updates_per_task: 1000}
reference: supsup
keep_weights: false
resources: {gpus: 0.25, cpus: 1}
"""

# One part a line, in this order; a test replaces or adds some. Without a name the parts begin in line 1.
PARTS = {"seeds": "[0]", "benchmarks": "[r-digits]", "methods": "{neuromodnet: {scales: [FC16]}}"}


def text_of(**parts: str) -> str:
    """A small sweep: seeds in line 1, benchmarks in line 2, methods in line 3, the parts given after them."""
    return "".join(f"{name}: {value}\n" for name, value in {**PARTS, **parts}.items())


@pytest.fixture
def load(sweep_file: SweepFile) -> Load:
    """Loads a small sweep with some parts replaced."""

    def read(**parts: str) -> Sweep:
        return load_sweep(sweep_file(text_of(**parts)))

    return read


@pytest.fixture
def faults(sweep_file: SweepFile) -> Faults:
    """The faults of a small sweep with some parts replaced, or of a text, each as `line N, path: message`."""

    def read(text: str | None = None, **parts: str) -> list[str]:
        with pytest.raises(UserError, match=r"sweep\.yaml: \d+ faults?; nothing was started") as error:
            load_sweep(sweep_file(text_of(**parts) if text is None else text))
        return [line.strip() for line in str(error.value).splitlines()[1:]]

    return read


# What a good file gives


def test_the_grammar_in_the_docstring_expands_to_its_grid(sweep_file: SweepFile) -> None:
    """Methods x variants x scales x benchmarks x seeds, in the order of the file."""
    sweep = load_sweep(sweep_file(EXAMPLE))
    assert sweep.name == "example"
    assert sweep.store == "runs/shared"
    assert sweep.resources == Resources(gpus=0.25, cpus=1.0)
    assert (sweep.reference, sweep.keep_weights) == ("supsup", False)
    methods = [
        ("supsup", "", "FC256"),
        ("neuromodnet", "both", "FC256"),
        ("neuromodnet", "both", "FC1024"),
        ("neuromodnet", "local", "FC256"),
        ("neuromodnet", "local", "FC1024"),
    ]
    benchmarks = {
        "r-mnist": RotatedSpec(base="mnist"),
        "six rotations": RotatedSpec(base="mnist", num_tasks=6),
        "own": PermutedSpec(base="digits", num_tasks=12),
    }
    found = [(cell.method, cell.variant, cell.scale, cell.benchmark) for cell in sweep.cells]
    assert found == [(*method, benchmark) for method, benchmark in itertools.product(methods, benchmarks)]
    assert [cell.group_size for cell in sweep.cells] == [None] * 3 + [8] * 12
    specs = {
        ("supsup", ""): (SupSupSpec(), TrainingSpec(learning_rate=1e-4)),
        ("neuromodnet", "both"): (NeuroModNetSpec(), TrainingSpec(learning_rate=0.01)),
        ("neuromodnet", "local"): (NeuroModNetSpec(modulation="local"), TrainingSpec(learning_rate=0.01)),
    }
    for cell in sweep.cells:
        method, training = specs[cell.method, cell.variant]
        assert cell.trials == tuple(
            TrialSpec(
                method=method, benchmark=benchmarks[cell.benchmark], scale=cell.scale, seed=seed, training=training
            )
            for seed in (0, 1, 2)
        )
    assert len(sweep.trials) == 45
    assert sweep.trials == tuple(trial for cell in sweep.cells for trial in cell.trials)


def test_the_docstring_shows_the_example_above() -> None:
    """A reader of the module and this test see the same grammar."""
    import orchestrator.sweeps.sweep

    documented = [line.partition("#")[0].strip() for line in (orchestrator.sweeps.sweep.__doc__ or "").splitlines()]
    assert [line for line in documented if line in map(str.strip, EXAMPLE.splitlines())] == [
        line.strip() for line in EXAMPLE.splitlines()
    ]


def test_what_is_not_given_is_the_papers(load: Load) -> None:
    """Without settings a method runs as published, its own learning rate included."""
    sweep = load(
        benchmarks="[r-mnist, p-mnist]",
        methods="{supsup: {scales: [FC256]}, flynet: {scales: [10d]}, neuromodnet: {scales: [FC256]}}",
    )
    assert [trial.method for trial in sweep.trials[::2]] == [SupSupSpec(), FlyNetSpec(), NeuroModNetSpec()]
    assert [trial.training for trial in sweep.trials[::2]] == [
        TrainingSpec(learning_rate=rate, updates_per_task=1000, batch_size=128, dtype="float32", optimizer="rmsprop")
        for rate in (1e-4, 0.01, 0.01)
    ]
    assert [trial.benchmark for trial in sweep.trials[:2]] == [
        RotatedSpec(base="mnist", num_tasks=36, step_degrees=10.0),
        PermutedSpec(base="mnist", num_tasks=100),
    ]
    assert sweep.resources == Resources(gpus=None, cpus=1.0)
    assert (sweep.store, sweep.reference, sweep.keep_weights) == (None, None, False)


def test_a_sweep_is_named_after_its_file(load: Load) -> None:
    """The file's name without its ending, where the file gives none."""
    assert load().name == "sweep"
    assert load(name="other-1.0_b").name == "other-1.0_b"


@pytest.mark.parametrize(
    ("benchmarks", "spec"),
    [
        ("[p-digits]", PermutedSpec(base="digits")),
        ("{p-digits: }", PermutedSpec(base="digits")),
        ("{p-digits: {}}", PermutedSpec(base="digits")),
        ("{p-digits: {num_tasks: 3}}", PermutedSpec(base="digits", num_tasks=3)),
        ("{p-digits: {preset: r-digits}}", RotatedSpec(base="digits")),
        ("{any: {preset: r-digits, step_degrees: 5}}", RotatedSpec(base="digits", step_degrees=5.0)),
        ("{any: {kind: permuted}}", PermutedSpec()),
        ("{r-digits: {kind: permuted, base: digits}}", PermutedSpec(base="digits")),
    ],
)
def test_benchmarks_are_presets_or_labels_with_settings(
    load: Load, benchmarks: str, spec: RotatedSpec | PermutedSpec
) -> None:
    """A label names a preset, or has a `preset` or a `kind` of its own; settings go on top."""
    (trial,) = load(benchmarks=benchmarks).trials
    assert trial.benchmark == spec


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


def test_numbers_may_be_written_in_several_ways(load: Load) -> None:
    """1e-4 is a number, and a whole number does for a real one: the trial is the same."""
    trials = [load(training=f"{{learning_rate: {rate}}}").trials[0] for rate in ("1e-4", "0.0001", "1.0E-4")]
    assert len({trial.trial_id for trial in trials}) == 1
    whole, real = (load(training=f"{{learning_rate: {rate}}}").trials[0] for rate in ("1", "1.0"))
    assert whole.trial_id == real.trial_id


def test_resources_are_no_part_of_a_trial(load: Load) -> None:
    """The same trial on other resources is the same trial."""
    plain, shared = load(), load(resources="{gpus: 0.5, cpus: 2}")
    assert shared.resources == Resources(gpus=0.5, cpus=2.0)
    assert plain.trials == shared.trials


@pytest.mark.parametrize("gpus", [0, 0.25, 1, 4])
def test_gpus_are_a_share_or_a_whole_number(load: Load, gpus: float) -> None:
    """None at all, a share of one, one, or several."""
    assert load(resources=f"{{gpus: {gpus}}}").resources.gpus == gpus


def test_aliases_of_yaml_may_be_used(sweep_file: SweepFile) -> None:
    """An anchor saves writing a block twice."""
    text = text_of(methods="{a: &entry {method: supsup, scales: [FC16]}, b: {method: supsup, scales: [FC32]}}")
    text += "training: &t {batch_size: 4}\n"
    assert [trial.training.batch_size for trial in load_sweep(sweep_file(text)).trials] == [4, 4]


def test_the_manifest_is_the_same_whenever_it_is_made(sweep_file: SweepFile) -> None:
    """Equal files give equal JSON, which says what the store keeps of a sweep."""
    first, second = (load_sweep(sweep_file(EXAMPLE)) for _ in range(2))
    content = first.manifest().to_json_bytes()
    assert content == second.manifest().to_json_bytes()
    manifest = json.loads(content)
    assert Manifest.from_json(content, name="example", place="example.json") == first.manifest()
    assert set(manifest) == {"format", "name", "reference", "cells", "sha256"}
    assert manifest["reference"] == "supsup"
    assert manifest["cells"][3] == {
        "method": "neuromodnet",
        "variant": "both",
        "scale": "FC256",
        "benchmark": "r-mnist",
        "continual": True,
        "validation": 0,
        "params_per_task": 1299.0,
        "ratio": 1_299 / 268_800,
        "spec": {
            name: value
            for name, value in json.loads(first.cells[3].trials[0].canonical_json()).items()
            if name != "seed"
        },
        "trials": {str(trial.seed): trial.trial_id for trial in first.cells[3].trials},
    }
    assert first.manifest().trial_ids == [trial.trial_id for trial in first.trials]


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
    ("entry", "fault"),
    [
        ("base: bb, variants: {ab: , b: {settings: {inhibition: 0.5}}}", "expected one of ab, b; given 'bb'; did you"),
        ("base: a", "expected variants beside it, one of which it names; given none"),
        ("base: a, variants: {a: }", "expected variants to compare with 'a'; given no other"),
        ("base: [a], variants: {a: , b: {settings: {inhibition: 0.5}}}", "expected a valid string; given ['a']"),
    ],
)
def test_a_base_is_one_of_several_variants(load: Load, entry: str, fault: str) -> None:
    """Anything else is a fault at its own place."""
    with pytest.raises(UserError, match=r"methods\.flynet\.base: " + re.escape(fault)):
        load(methods="{flynet: {scales: [10d], " + entry + "}}")


# What a faulty file gives

MANY_FAULTS = """\
seed: [1]
seeds: [0, -1, true, "2", 1.0]
benchmarks: [r-digits, r-mnsit, 3]
methods:
  neuromodnt: {scales: [FC256]}
  neuromodnet:
    scales: [FC16]
    settings: {modulatoin: local, weight_gain: -1}
    training: {learning_rate: "0.1", updates_per_task: 0, batch_size: 2.0, dtype: float23}
    variants:
      a: {setings: {}}
      c: 3
  other: {method: flynett, scales: [10d]}
  flynet: {scales: []}
  flynet: {scales: [10d]}
training: {learnin_rate: 1, batch_size: .nan}
resources: {gpus: -1, cpu: 1}
reference: neuromodnets
keep_weights: 1
"""


def test_all_faults_are_reported_at_once(faults: Faults) -> None:
    """One look at the message mends the whole file: every fault with its line, sorted, with the nearest name."""
    training = (
        "expected one of batch_size, dtype, epochs_per_task, learning_rate, momentum, optimizer, schedule, "
        "updates_per_task, weight_decay"
    )
    settings = (
        "expected one of context_high, context_low, first_task_rate, initial_strength, modulation, pretrained, "
        "weight_gain"
    )
    methods = "expected one of " + ", ".join(sorted(METHODS))
    entry = "methods.neuromodnet"
    expected = [
        (
            "line 1, seed: unknown key; expected one of benchmarks, keep_weights, methods, name, reference, resources, "
            "seeds, store, training; given 'seed'; did you mean 'seeds'?"
        ),
        "line 2, seeds[1]: expected greater than or equal to 0; given -1",
        "line 2, seeds[2]: expected a valid integer; given True",
        "line 2, seeds[3]: expected a valid integer; given '2'",
        "line 2, seeds[4]: expected a valid integer; given 1.0",
        f"line 3, benchmarks[1]: {PRESET_NAMES}; given 'r-mnsit'; did you mean 'r-mnist'?",
        f"line 3, benchmarks[2]: {PRESET_NAMES}; given '3'",
        f"line 5, methods.neuromodnt: {methods}; given 'neuromodnt'; did you mean 'neuromodnet'?",
        f"line 8, {entry}.settings.modulatoin: unknown key; {settings}; given 'modulatoin'; did you mean 'modulation'?",
        f"line 8, {entry}.settings.weight_gain: expected greater than 0; given -1",
        f"line 9, {entry}.training.learning_rate: expected a valid number; given '0.1'",
        f"line 9, {entry}.training.updates_per_task: expected greater than or equal to 1; given 0",
        f"line 9, {entry}.training.batch_size: expected a valid integer; given 2.0",
        (
            f"line 9, {entry}.training.dtype: expected one of bfloat16, float32, float64; given 'float23'; "
            "did you mean 'float32'?"
        ),
        (
            f"line 11, {entry}.variants.a.setings: unknown key; expected one of settings, training; given 'setings'; "
            "did you mean 'settings'?"
        ),
        f"line 12, {entry}.variants.c: expected overrides such as {{settings: {{...}}}}, given 3",
        f"line 13, methods.other.method: {methods}; given 'flynett'; did you mean 'flynet'?",
        "line 14, methods.flynet: given twice, in line 14 and in line 15; keep one of them",
        "line 14, methods.flynet.scales: expected at least one, given none; an empty grid has no trials",
        f"line 16, training.learnin_rate: unknown key; {training}; given 'learnin_rate'; did you mean 'learning_rate'?",
        "line 16, training.batch_size: expected a valid integer; given nan",
        "line 17, resources.gpus: expected greater than or equal to 0; given -1",
        "line 17, resources.cpu: unknown key; expected one of cpus, gpus; given 'cpu'; did you mean 'cpus'?",
        (
            "line 18, reference: expected one of flynet, neuromodnet, neuromodnt, other; given 'neuromodnets'; "
            "did you mean 'neuromodnet'?"
        ),
        "line 19, keep_weights: expected a valid boolean; given 1",
    ]
    found = faults(MANY_FAULTS)
    assert sorted(found) == sorted(expected)
    lines = [int(fault.split(",")[0].removeprefix("line ")) for fault in found]
    assert lines == sorted(lines)


def test_the_first_line_counts_the_faults(sweep_file: SweepFile) -> None:
    """It names the file and says that nothing was started."""
    file = sweep_file(text_of(seeds="[0, -1, -2]"))
    with pytest.raises(UserError) as error:
        load_sweep(file)
    assert str(error.value).splitlines()[0] == f"{file}: 2 faults; nothing was started"


@pytest.mark.parametrize("text", ["", "# nothing\n", "[a, b]\n", "text\n", "3\n"])
def test_a_file_that_is_no_sweep_is_refused(faults: Faults, text: str) -> None:
    """An empty file and a list have no keys to speak of."""
    assert faults(text) == ["line 1, the file: expected a sweep: keys such as seeds, benchmarks and methods"]


def test_missing_keys_are_named(faults: Faults) -> None:
    """What a sweep cannot do without, and what an entry cannot."""
    assert faults("name: a\n") == [
        f"line 1, {key}: expected this key, not given; add it" for key in ("seeds", "benchmarks", "methods")
    ]
    assert faults(methods="{supsup: {}}") == ["line 3, methods.supsup.scales: expected this key, not given; add it"]


def test_keys_without_a_value_are_named(faults: Faults) -> None:
    """A key whose value was forgotten is a fault of its own."""
    found = faults("seeds:\nbenchmarks:\nmethods:\n")
    assert [fault.split(":")[0] for fault in found] == ["line 1, seeds", "line 2, benchmarks", "line 3, methods"]


@pytest.mark.parametrize(
    ("parts", "place"),
    [
        ({"seeds": "[]"}, "line 1, seeds"),
        ({"benchmarks": "[]"}, "line 2, benchmarks"),
        ({"benchmarks": "{}"}, "line 2, benchmarks"),
        ({"methods": "{}"}, "line 3, methods"),
        ({"methods": "{supsup: {scales: []}}"}, "line 3, methods.supsup.scales"),
        ({"methods": "{supsup: {scales: [FC16], variants: {}}}"}, "line 3, methods.supsup.variants"),
    ],
)
def test_an_empty_grid_is_refused(faults: Faults, parts: dict[str, str], place: str) -> None:
    """A sweep without trials would look like one that is done."""
    (fault,) = faults(**parts)
    assert fault.startswith(f"{place}: expected at least one")


@pytest.mark.parametrize(
    ("part", "value", "fault"),
    [
        ("seeds", "3", ": expected a list; given 3"),
        ("seeds", "[0, .nan]", "[1]: expected a valid integer; given nan"),
        ("training", "[1]", ": expected keys with values; given [1]"),
        ("training", "{learning_rate: true}", ".learning_rate: expected a valid number; given True"),
        ("training", "{learning_rate: '0.1'}", ".learning_rate: expected a valid number; given '0.1'"),
        ("training", "{learning_rate: .nan}", ".learning_rate: expected a finite number; given nan"),
        ("training", "{learning_rate: .inf}", ".learning_rate: expected a finite number; given inf"),
        ("training", "{learning_rate: 1e999}", ".learning_rate: expected a finite number; given inf"),
        ("training", "{learning_rate: 0}", ".learning_rate: expected greater than 0; given 0"),
        ("training", "{learning_rate: -1e-4}", ".learning_rate: expected greater than 0; given -0.0001"),
        ("training", "{updates_per_task: 2.0}", ".updates_per_task: expected a valid integer; given 2.0"),
        ("training", "{updates_per_task: 1e3}", ".updates_per_task: expected a valid integer; given 1000.0"),
        ("training", "{batch_size: 0}", ".batch_size: expected greater than or equal to 1; given 0"),
        ("training", "{batch_size: yes}", ".batch_size: expected a valid integer; given True"),
        ("training", "{batch_size: -1}", ".batch_size: expected greater than or equal to 1; given -1"),
        ("training", "{optimizer: adamw}", ".optimizer: expected one of adam, rmsprop, sgd; given 'adamw'"),
        ("benchmarks", "r-digits", ": expected at least one benchmark: a list of presets, or labels with settings"),
        ("benchmarks", "{r-digits: {num_tasks: -6}}", ".r-digits.num_tasks: expected greater than or equal to 1"),
        ("benchmarks", "{r-digits: {num_tasks: '6'}}", ".r-digits.num_tasks: expected a valid integer; given '6'"),
        ("benchmarks", "{r-digits: 6}", ".r-digits: expected settings such as {preset: r-mnist, num_tasks: 6}"),
        ("methods", "[supsup]", ": expected keys with values; given ['supsup']"),
        ("methods", "{supsup: }", ".supsup: expected an entry such as {scales: [FC256]}, given None"),
        ("methods", "{supsup: {scales: FC16}}", ".supsup.scales: expected a list; given 'FC16'"),
        (
            "methods",
            "{flynet: {scales: [1d], settings: [a]}}",
            ".flynet.settings: expected keys with values; given ['a']",
        ),
        ("methods", "{flynet: {scales: [1d], training: 3}}", ".flynet.training: expected keys with values; given 3"),
        (
            "methods",
            "{flynet: {scales: [1d], variants: [a]}}",
            ".flynet.variants: expected keys with values; given ['a']",
        ),
        ("name", "3", ": expected a valid string; given 3"),
        ("store", "3", ": expected a valid string; given 3"),
        ("reference", "3", ": expected a valid string; given 3"),
        ("reference", "[neuromodnet]", ": expected a valid string; given ['neuromodnet']"),
        ("keep_weights", "'yes'", ": expected a valid boolean; given 'yes'"),
        ("keep_weights", "1", ": expected a valid boolean; given 1"),
        ("resources", "[1]", ": expected keys with values; given [1]"),
        ("resources", "{gpus: 1.5}", ": gpus: expected a share of at most 1 or a whole number, given 1.5"),
        ("resources", "{gpus: -0.5}", ".gpus: expected greater than or equal to 0; given -0.5"),
        ("resources", "{gpus: .inf}", ".gpus: expected a finite number; given inf"),
        ("resources", "{gpus: '1'}", ".gpus: expected a valid number; given '1'"),
        ("resources", "{cpus: 0}", ".cpus: expected greater than 0; given 0"),
    ],
)
def test_a_value_of_the_wrong_kind_is_refused(faults: Faults, part: str, value: str, fault: str) -> None:
    """Text is no number, a truth value no count, a fraction no integer, and nothing is infinite or negative."""
    (found,) = faults(**{part: value})
    line = list({**PARTS, part: value}).index(part) + 1
    assert found.startswith(f"line {line}, {part}{fault}")


@pytest.mark.parametrize(
    ("parts", "place", "given", "quoted"),
    [
        ({"name": "2026"}, "line 4, name", "2026", "2026"),
        ({"name": "1e3"}, "line 4, name", "1000.0", "1e3"),
        ({"store": "yes"}, "line 4, store", "True, as YAML reads yes", "yes"),
        ({"reference": "off"}, "line 4, reference", "False, as YAML reads off", "off"),
        ({"reference": "0x10"}, "line 4, reference", "16, as YAML reads 0x10", "0x10"),
        ({"methods": "{mtl: {scales: [no]}}"}, "line 3, methods.mtl.scales[0]", "False, as YAML reads no", "no"),
        ({"methods": "{mtl: {scales: [FC16], benchmarks: [~]}}"}, "line 3, methods.mtl.benchmarks[0]", "nothing", "~"),
    ],
)
def test_a_text_that_yaml_reads_as_something_else_is_to_be_quoted(
    faults: Faults, parts: dict[str, str], place: str, given: str, quoted: str
) -> None:
    """A name like a number or a truth value: the message says how it was read and what to write."""
    assert f"{place}: expected a valid string; given {given}; write it in quotes: '{quoted}'" in faults(**parts)


@pytest.mark.parametrize("base", ["off", "1", "null"])
def test_a_variant_may_have_any_name_in_quotes(load: Load, faults: Faults, base: str) -> None:
    """As a key it is text; as a value it has to be quoted, and is not taken for no base at all."""
    methods = "{neuromodnet: {scales: [FC16], base: BASE, variants: {other: , NAME: {settings: {modulation: local}}}}}"
    methods = methods.replace("NAME", base)
    (fault,) = faults(methods=methods.replace("BASE", base))
    assert fault.startswith("line 3, methods.neuromodnet.base: expected a")
    assert fault.endswith(f"write it in quotes: '{base}'")
    assert load(methods=methods.replace("BASE", f"'{base}'")).cells[0].base == base


def test_a_reference_called_null_is_to_be_quoted(load: Load, faults: Faults) -> None:
    """Written plainly it means none."""
    methods = "{null: {method: mtl, scales: [FC16]}}"
    assert faults(methods=methods, reference="null") == [
        "line 4, reference: expected a label; given nothing; write it in quotes: 'null'"
    ]
    assert load(methods=methods, reference="'null'").reference == "null"
    assert load(reference="null").reference is None


@pytest.mark.parametrize(
    ("benchmarks", "given"),
    [("[off]", "'off'"), ("{x: {preset: 0x10}}", "'0x10'"), ("{x: {kind: no}}", "'no'"), ("[3]", "'3'")],
)
def test_an_unknown_name_is_shown_as_it_is_written(faults: Faults, benchmarks: str, given: str) -> None:
    """Not as what YAML makes of it."""
    (fault,) = faults(benchmarks=benchmarks)
    assert f"; given {given}" in fault


def test_an_ambiguous_number_is_one_fault_where_it_stands(faults: Faults) -> None:
    """010 is neither eight nor ten, and that nothing could be read there is not told again."""
    found = faults(seeds="[010, 011]", training="{batch_size: 016, learning_rate: 1:40}")
    assert [fault.split(", or '")[0].split("expected a number that all programs read alike, ") for fault in found] == [
        ["line 1, seeds[0]: ", "given 010; write 10 (or 0o10 for 8)"],
        ["line 1, seeds[1]: ", "given 011; write 11 (or 0o11 for 9)"],
        ["line 4, training.batch_size: ", "given 016; write 16 (or 0o16 for 14)"],
        ["line 4, training.learning_rate: ", "given 1:40; write 100"],
    ]


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
    assert any("expected at most 200,000 trials, given lists that make" in fault for fault in faults(**closed))


def test_a_list_of_unknown_names_is_refused_as_fast_as_it_is_read(faults: Faults) -> None:
    """Each is a fault; the first are compared with the names that are known, the rest is counted."""
    found = faults(benchmarks=str([f"r-nist{number}" for number in range(3000)]))
    assert found[0].endswith("given 'r-nist0'; did you mean 'r-mnist'?")
    assert found[-1] == "and 2950 more"


@pytest.mark.parametrize("part", ["seeds", "scales"])
def test_elements_of_the_wrong_kind_are_the_only_fault_of_their_list(faults: Faults, part: str) -> None:
    """A list of which no element is right is not an empty one as well."""
    parts = {"seeds": "['0']"} if part == "seeds" else {"methods": "{supsup: {scales: [256]}}"}
    (fault,) = faults(**parts)
    assert f"{part}[0]: expected a valid" in fault


def test_a_seed_must_fit_its_column(faults: Faults) -> None:
    """The store keeps seeds as 64-bit integers: a larger one is refused before it is trained with, not after."""
    (fault,) = faults(seeds=f"[{2**63}]")
    assert fault.startswith("line 1, seeds[0]: expected")


@pytest.mark.parametrize(
    ("benchmarks", "fault"),
    [
        ("{x: {kind: [a]}}", "line 2, benchmarks.x.kind"),
        ("{x: {preset: {a: 1}}}", "line 2, benchmarks.x.preset"),
        ("[[r-digits]]", "line 2, benchmarks[0]"),
        ("[{preset: r-digits}]", "line 2, benchmarks[0]"),
    ],
)
def test_a_name_that_is_no_text_is_refused(faults: Faults, benchmarks: str, fault: str) -> None:
    """A list or an object in the place of a name is a fault like any other."""
    assert faults(benchmarks=benchmarks)[0].startswith(f"{fault}: expected")


def test_a_methods_name_that_is_no_text_is_refused(faults: Faults) -> None:
    """`method:` with a list is a fault like any other."""
    assert faults(methods="{x: {method: [supsup], scales: [FC16]}}")[0].startswith("line 3, methods.x.method: expected")


@pytest.mark.parametrize(
    ("benchmarks", "fault"),
    [
        ("[r-mnits]", f"[0]: {PRESET_NAMES}; given 'r-mnits'; did you mean"),
        ("{x: {preset: r-mnits}}", f".x.preset: {PRESET_NAMES}; given 'r-mnits'"),
        (
            "{x: {kind: rotate}}",
            ".x.kind: expected one of permuted, rotated, sequential, split, turning; given 'rotate'; did you mean 'rot",
        ),
        ("{x: {num_tasks: 3}}", f".x: {PRESET_NAMES}; given 'x'; another label"),
        ("{x: }", f".x: {PRESET_NAMES}; given 'x'; another label needs a preset"),
        ("{x: {kind: rotated, preset: r-mnist}}", ".x: expected either preset or kind, given both; remove one"),
        ("{x: {kind: permuted, base: mnits}}", ".x.base: expected one of digits, mnist; given 'mnits'; did you mean"),
        (
            "{p-digits: {step_degrees: 3}}",
            ".p-digits.step_degrees: unknown key; expected one of base, first, normalise, num_tasks, task_known, tests",
        ),
        (
            "{r-digits: {nmu_tasks: 3}}",
            ".r-digits.nmu_tasks: unknown key; expected one of angles, base, first, normalise, num_tasks, step_degrees",
        ),
    ],
)
def test_a_benchmark_that_is_not_known_is_refused(faults: Faults, benchmarks: str, fault: str) -> None:
    """Presets, kinds, base sets and settings are checked by name."""
    (found,) = faults(benchmarks=benchmarks)
    assert found.startswith(f"line 2, benchmarks{fault}")


@pytest.mark.parametrize("settings", ["{num_tasks: 37}", "{step_degrees: 30}", "{num_tasks: 5, step_degrees: 90}"])
def test_rotations_beyond_a_full_turn_are_refused(faults: Faults, settings: str) -> None:
    """They would repeat tasks; the message says how far they go."""
    (fault,) = faults(benchmarks=f"{{r-digits: {settings}}}")
    assert fault.startswith("line 2, benchmarks.r-digits: num_tasks and step_degrees: expected rotations below 360")
    assert fault.endswith("lower one of them")


def test_a_full_turn_is_allowed(load: Load) -> None:
    """The last task of 36 by 10 degrees is at 350."""
    assert (
        load(benchmarks="{r-digits: {num_tasks: 12, step_degrees: 30}}").trials[0].benchmark.problem().num_tasks == 12
    )


@pytest.mark.parametrize(
    ("method", "scale", "fault"),
    [
        ("neuromodnet", "10d", SCALES + "given '10d'"),
        ("neuromodnet", "FC0", SCALES + "given 'FC0'"),
        ("supsup", "fc16", SCALES + "given 'fc16'"),
        ("flynet", "FC256", "scale: expected one such as 10d or 40d, given 'FC256'"),
        ("flynet", "0d", "scale: expected one such as 10d or 40d, given '0d'"),
    ],
)
def test_a_scale_of_another_method_is_refused(faults: Faults, method: str, scale: str, fault: str) -> None:
    """FlyNet's scales are no other's; the message shows what a scale of this method looks like."""
    (found,) = faults(methods=f"{{{method}: {{scales: [{scale}]}}}}")
    assert found.startswith(f"line 3, methods.{method}")
    assert found.endswith(fault)


def test_an_entry_may_be_for_some_benchmarks(load: Load) -> None:
    """Its trials are on those alone, in the order of the file; the other entries' on all."""
    methods = "{supsup: {scales: [FC16]}, flynet: {scales: [1d], benchmarks: [p-digits]}}"
    cells = load(benchmarks="[r-digits, p-digits]", methods=methods).cells
    asked = [(cell.method, cell.benchmark) for cell in cells]
    assert asked == [("supsup", "r-digits"), ("supsup", "p-digits"), ("flynet", "p-digits")]


@pytest.mark.parametrize(
    ("benchmarks", "fault"),
    [
        ("[r-digit]", "[0]: expected one of r-digits; given 'r-digit'; did you mean 'r-digits'?"),
        ("[r-digits, r-digits]", "[1]: asks for the same trials twice: 'r-digits' is repeated; remove it"),
        ("[]", ": expected "),
        ("r-digits", ": expected "),
    ],
)
def test_an_entrys_benchmarks_are_the_sweeps(faults: Faults, benchmarks: str, fault: str) -> None:
    """A label that the sweep does not have, or has once, is refused with its place."""
    (found,) = faults(methods=f"{{supsup: {{scales: [FC16], benchmarks: {benchmarks}}}}}")
    assert found.startswith(f"line 3, methods.supsup.benchmarks{fault}")


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
    with pytest.raises(UserError, match=r"line 7, methods\.supsup\.scales\[1\]: scale: expected one such as FC256"):
        load_sweep(sweep_file(text))


@pytest.mark.parametrize(
    ("entry", "fault"),
    [
        (
            "{scales: [FC16], scale: [FC32]}",
            ".scale: unknown key; expected one of base, benchmarks, group_size, method, scales, settings, training",
        ),
        ("{scales: [FC16], settings: {kind: flynet}}", ".settings.kind: unknown key; expected one of context_high"),
        ("{scales: [FC16], settings: {modulation: 3}}", ".settings.modulation: expected 'local+global', 'local' or"),
        ("{scales: [FC16], settings: {modulation: lcoal}}", ".settings.modulation: expected one of global, local"),
        ("{scales: [FC16], settings: {context_low: 2}}", ".settings: context_low: expected at most context_high (1.0)"),
        (
            "{scales: [FC16], variants: {a: {scales: [FC1]}}}",
            ".variants.a.scales: unknown key; expected one of settings",
        ),
        ("{scales: [FC16], variants: {a: {settings: {gain: 1}}}}", ".variants.a.settings.gain: unknown key; expected"),
        ("{scales: [FC16], variants: {a: {training: {batch_size: 0}}}}", ".variants.a.training.batch_size: expected"),
    ],
)
def test_a_setting_that_does_not_fit_is_refused(faults: Faults, entry: str, fault: str) -> None:
    """A method's entry, its settings and its variants are checked by name and value."""
    (found,) = faults(methods=f"{{neuromodnet: {entry}}}")
    assert found.startswith(f"line 3, methods.neuromodnet{fault}")


def test_a_method_without_settings_says_so(faults: Faults) -> None:
    """Where nothing can be set, an empty list of names would look broken."""
    (fault,) = faults(methods="{supsup: {scales: [FC16], settings: {gain: 1}}}")
    assert fault.startswith("line 3, methods.supsup.settings.gain: unknown key; ")
    assert "expected one of ;" not in fault


def test_what_a_method_cannot_do_on_a_benchmark_is_refused(faults: Faults) -> None:
    """A hidden unit of FlyNet must sum at least one pixel, whatever the images' size."""
    (fault,) = faults(methods="{flynet: {scales: [10d], settings: {connectivity: 0.001}}}")
    assert "connectivity: expected at least 1/64, so that a unit sums an input, given 0.001" in fault


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
    assert fault.startswith(f"{place}: asks for the same trials twice: ")
    assert fault.endswith(("remove it", "remove one"))


def test_what_is_asked_for_twice_is_named(faults: Faults) -> None:
    """Both places are in the message."""
    assert faults(methods="{flynet: {scales: [1d], variants: {a: , b: {}}}}") == [
        (
            "line 3, methods.flynet.variants.b: asks for the same trials twice: methods.flynet.variants.b at 1d on "
            "r-digits equals methods.flynet.variants.a at 1d on r-digits; remove one"
        )
    ]


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
    assert "twice" not in fault


@pytest.mark.parametrize("label", ["''", "' '", '"two\\nlines"', '"\\e[2J"'])
@pytest.mark.parametrize(
    ("parts", "place"),
    [
        ({"benchmarks": "{LABEL: {preset: r-digits}}"}, "line 2, benchmarks"),
        ({"methods": "{LABEL: {method: supsup, scales: [FC16]}}"}, "line 3, methods"),
        ({"methods": "{supsup: {scales: [FC16], variants: {LABEL: {}}}}"}, "line 3, methods.supsup.variants"),
    ],
)
def test_a_label_that_cannot_be_shown_is_refused(faults: Faults, parts: dict[str, str], place: str, label: str) -> None:
    """Labels are names in tables and in lines: at least one character, no line break, nothing a terminal obeys."""
    (fault,) = faults(**{part: value.replace("LABEL", label) for part, value in parts.items()})
    assert fault.startswith(place)
    assert "expected" in fault


def test_a_label_of_any_length_is_no_label(faults: Faults) -> None:
    """One that no table or figure has room for is refused where it stands, in a line that is short itself."""
    load = "{preset: r-digits}"
    (fault,) = faults(benchmarks=f"{{? {'x' * 5000} : {load}}}")
    assert fault.startswith("line 2, benchmarks.xxx")
    assert fault.endswith("expected a label of at most 100 characters, given 5,000")
    assert len(fault) < 250
    assert not any(
        "label of at most" in text for text in faults(benchmarks=f"{{{'x' * 100}: {load}, a: {{preset: x}}}}")
    )


@pytest.mark.parametrize("label", ["method", "variant", "scale", "network", "params/task", "ratio"])
def test_a_benchmark_cannot_be_called_like_a_column(faults: Faults, label: str) -> None:
    """In the table its accuracies would take the place of the column of that name."""
    (fault,) = faults(benchmarks=f"{{{label}: {{preset: r-digits}}}}")
    assert fault.startswith(f"line 2, benchmarks.{label}: expected")


@pytest.mark.parametrize("name", ["'a b'", "'../a'", "''", "'.hidden'", "-a", "'a/b'", "é", '"a\\n"'])
def test_a_name_that_makes_no_file_name_is_refused(faults: Faults, name: str) -> None:
    """The manifest and the tables are files of that name."""
    (fault,) = faults(name=name)
    assert fault.startswith("line 4, name: expected at most 100 letters, digits, '.', '_' and '-'")


def test_a_file_whose_name_makes_no_sweeps_name_is_refused(sweep_file: SweepFile) -> None:
    """Where the file gives no name, its own must do."""
    with pytest.raises(UserError, match=r"add a `name:`.*expected at most 100 letters, digits.*given 'my sweep'"):
        load_sweep(sweep_file(text_of(), name="my sweep.yaml"))


def test_a_bad_name_is_reported_beside_other_faults(faults: Faults) -> None:
    """A fault at the file's top does not hide the name's."""
    found = faults(seeds="[-1]", name="a b")
    assert [fault.split(":")[0] for fault in found] == ["line 1, seeds[0]", "line 4, name"]


def test_training_is_checked_even_if_no_method_is_known(faults: Faults) -> None:
    """A misspelt method does not hide what is wrong with the training settings."""
    found = faults(methods="{supsupp: {scales: [FC16]}}", training="{learning_rate: -1}")
    assert [fault.split(":")[0] for fault in found] == ["line 3, methods.supsupp", "line 4, training.learning_rate"]


@pytest.mark.parametrize("store", ["runs/shared", "s3://bucket/runs", "gs://bucket/runs"])
def test_a_store_is_a_folder_or_on_object_storage(load: Load, store: str) -> None:
    """It is kept as it was written; nothing is looked up while a sweep is read."""
    assert load(store=store).store == store


@pytest.mark.parametrize("store", ["http://server/runs", "s3:/bucket/runs", "s3://key:hidden@bucket/runs"])
def test_a_store_that_is_neither_is_refused(faults: Faults, store: str) -> None:
    """With its place in the file; an address of something else is not quietly made a folder of that name."""
    (fault,) = faults(store=f"'{store}'")
    assert fault.startswith("line 4, store: expected")
    assert "hidden" not in fault


# The reference, the sizes of groups, and kept weights


def test_a_ratio_is_to_the_reference_on_the_same_benchmark(load: Load) -> None:
    """BatchE shares its weights among the tasks: 64 * 16 + 16 * 16 + 16 * 10 of them, and 138 factors of its own."""
    sweep = load(
        benchmarks="{few: {preset: r-digits, num_tasks: 2}, many: {preset: r-digits, num_tasks: 10}}",
        methods="{supsup: {scales: [FC16]}, batche: {scales: [FC16]}}",
        reference="batche",
    )
    weights, factors = 64 * 16 + 16 * 16 + 16 * 10, (64 + 16) + (16 + 16) + (16 + 10)
    few, many = weights / 2 + factors, weights / 10 + factors
    assert [sweep.ratio(cell) for cell in sweep.cells] == [weights / few, weights / many, 1.0, 1.0]
    assert [cell.ratio for cell in sweep.manifest().cells] == [weights / few, weights / many, 1.0, 1.0]


def test_without_a_reference_there_is_no_ratio(load: Load) -> None:
    """Neither in the sweep nor in its manifest."""
    sweep = load()
    assert [sweep.ratio(cell) for cell in sweep.cells] == [None]
    manifest = sweep.manifest()
    assert (manifest.reference, manifest.cells[0].ratio) == (None, None)


def test_the_manifest_says_what_is_no_test_set_and_not_continual(load: Load) -> None:
    """So that a table can say it without the sweep file."""
    sweep = load(
        benchmarks="{r-digits: , held out: {preset: r-digits, validation: 100}}",
        methods="{mtl: {scales: [FC16]}, psp: {scales: [FC16]}}",
    )
    cells = sweep.manifest().cells
    assert [cell.continual for cell in cells] == [False, False, True, True]
    assert [cell.validation for cell in cells] == [0, 100, 0, 100]


@pytest.mark.parametrize(
    ("reference", "fault"),
    [
        ("mlt", "expected one of mtl, other, supsup; given 'mlt'; did you mean 'mtl'?"),
        ("FC16", "expected one of mtl, other, supsup; given 'FC16'"),
        (
            "supsup",
            "expected a method with one scale and no variants to compare with; 'supsup' has more",
        ),
        (
            "other",
            "expected a method with one scale and no variants to compare with; 'other' has more",
        ),
    ],
)
def test_a_reference_must_be_one_row(faults: Faults, reference: str, fault: str) -> None:
    """A label of this file, with one scale and without variants, or there would be several numbers to compare with."""
    methods = (
        "{mtl: {scales: [FC16]}, supsup: {scales: [FC16, FC32]}, "
        "other: {method: neuromodnet, scales: [FC16], variants: {a: , b: {settings: {modulation: local}}}}}"
    )
    assert faults(methods=methods, reference=reference) == [f"line 4, reference: {fault}"]


def test_a_faulty_entry_is_not_an_unknown_reference(faults: Faults) -> None:
    """Its own fault is enough: once it is mended there is something to compare with."""
    for entry in ("{scales: [FC16], settings: [a]}", "{method: mlt, scales: [FC16]}", "3"):
        (fault,) = faults(methods=f"{{mtl: {entry}, supsup: {{scales: [FC16]}}}}", reference="mtl")
        assert fault.startswith("line 3, methods.mtl")


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
    assert faults(text) == [
        "line 6, methods.psp.group_size: expected 1, given 2; this method learns one task at a time",
        "line 9, methods.mtl.group_size: expected 4, given 3; this method learns all tasks at once",
        "line 9, methods.mtl.group_size: expected 6, given 3; this method learns all tasks at once",
        "line 12, methods.neuromodnet.group_size: expected greater than or equal to 1; given 0",
        "line 14, methods.supsup.group_size: expected a valid integer; given 'all'",
        "line 19, reference: expected a method with one scale and no variants to compare with; 'mtl' has more",
    ]


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


def test_how_a_trial_is_run_and_shown_is_no_part_of_it(load: Load) -> None:
    """Groups, kept weights and a reference leave every trial, and so its identity, as it is."""
    plain = load(methods="{neuromodnet: {scales: [FC16]}, supsup: {scales: [FC16]}}")
    other = load(
        methods="{neuromodnet: {scales: [FC16], group_size: 2}, supsup: {scales: [FC16]}}",
        keep_weights="true",
        reference="supsup",
    )
    assert other.keep_weights
    assert not plain.keep_weights
    assert [trial.trial_id for trial in other.trials] == [trial.trial_id for trial in plain.trials]


# What a method or a benchmark cannot do


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
    """Whoever gives one of them means it, for all methods or for one, and need not undo the other."""
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
        assert "epochs_per_task" in line
        assert any(place in other for other in found)


def test_methods_that_a_scenario_does_not_fit_are_refused_at_once(faults: Faults) -> None:
    """With both names and what would work, beside whatever else is wrong, once for all scales."""
    found = faults(
        benchmarks="[r-digits, split-digits]",
        methods="{finetune: {scales: [FC16, FC32]}, stl: {scales: [FC16], group_size: 0}}",
    )
    assert len(found) == 2
    refused = next(line for line in found if "methods.finetune" in line)
    for part in ("line 3", "finetune", "'split'", "such as stl"):
        assert part in refused


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
        ("line 5, benchmarks.odd", "num_tasks", "1, 2, 5, 10", "given 3"),
        ("line 7, methods.er", "at most the 1437 training images", "given 1438"),
        ("line 8, methods.agem.settings.buffer", "equal to 1", "given 0"),
        ("line 9, methods.ewc", "ewc", "'general' of 'turning'", "'task' or 'domain' or 'class'"),
        ("line 10, methods.stl", "stl", "'class' of 'sequential'", "runs where the scenario is 'task'"),
        ("line 11, methods.joint", "updates_per_task", "'turning'", "given 9"),
        ("line 12, methods.finetune.training", "epochs_per_task", "updates_per_task: 7"),
    )
    found = faults(WRONG_IN_MANY_WAYS)
    assert len(found) == len(expected)
    for line, parts in zip(found, expected, strict=True):
        for part in parts:
            assert part in line


def test_what_a_scenario_allows_is_planned(load: Load) -> None:
    """Nobody need undo a method's own epochs on a stream, and as large a buffer as there are images is one."""
    sweep = load(
        benchmarks="[seq-digits, digits-360, p-digits-domain]",
        methods="{finetune: {scales: [FC16]}, er: {scales: [FC16], settings: {buffer: 1304}}, joint: {scales: [FC16]}}",
    )
    assert len(sweep.trials) == 9


def test_flynet_on_images_with_channels_is_refused(load: Load, faults: Faults, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its inputs are a fly's: one channel. The message says what to do; other methods may learn the benchmark."""
    monkeypatch.setattr(sweep_module, "PRESETS", {**PRESETS, "colour": ColourSpec()})
    assert load(benchmarks="[colour]").trials[0].blueprint().params_per_task == 3 * 64 + 16 + 16 + 3
    assert faults(benchmarks="[r-digits, colour]", methods="{flynet: {scales: [10d, 20d]}}") == [
        (
            "line 3, methods.flynet: FlyNet exists for grey images only: expected 1 channel, given 3; "
            "leave FlyNet out of sweeps over this benchmark"
        )
    ]


def test_pretraining_for_no_other_task_is_refused(load: Load, faults: Faults) -> None:
    """The first task only prepares the others; the variant is named, and one that is not pretrained may be there."""
    benchmarks = "{r-digits: {num_tasks: %d}}"
    methods = "{neuromodnet: {scales: [FC16], variants: {random: , pretrained: {settings: {pretrained: true}}}}}"
    assert faults(benchmarks=benchmarks % 1, methods=methods) == [
        (
            "line 3, methods.neuromodnet.variants.pretrained: pretrained: expected a benchmark of at least 2 tasks, "
            "given 1; the first task only prepares the others"
        )
    ]
    assert [cell.variant for cell in load(benchmarks=benchmarks % 2, methods=methods).cells] == ["random", "pretrained"]


@pytest.mark.parametrize(
    ("method", "setting", "fault"),
    [
        ("psp", "modulation: local", "modulation: unknown key; expected none here; given 'modulation'"),
        ("mtl", "modulation: local", "modulation: unknown key; expected one of weight_gain; given 'modulation'"),
        (
            "batche",
            "pretrained: true",
            "pretrained: unknown key; expected one of first_task_rate; given 'pretrained'",
        ),
    ],
)
def test_a_variant_that_a_method_lacks_is_refused(faults: Faults, method: str, setting: str, fault: str) -> None:
    """A setting of another method is no setting of this one; what it has is listed."""
    (found,) = faults(methods=f"{{{method}: {{scales: [FC16], variants: {{own: {{settings: {{{setting}}}}}}}}}}}")
    assert found == f"line 3, methods.{method}.variants.own.settings.{fault}"


@pytest.mark.parametrize("kind", ["r-digits", "p-digits"])
def test_a_validation_split_leaves_images_to_train_on(load: Load, faults: Faults, kind: str) -> None:
    """All of them held out is one too many; the message says how many there are."""
    num_train = BASE_SETS["digits"].num_train
    assert (
        load(benchmarks=f"{{{kind}: {{validation: {num_train - 1}}}}}").trials[0].benchmark.validation == num_train - 1
    )
    assert faults(benchmarks=f"{{{kind}: {{validation: {num_train}}}}}") == [
        (
            f"line 2, benchmarks.{kind}: validation: expected fewer than the {num_train} training images of 'digits', "
            f"given {num_train}; the rest is trained on"
        )
    ]
    (fault,) = faults(benchmarks=f"{{{kind}: {{validation: -1}}}}")
    assert fault == f"line 2, benchmarks.{kind}.validation: expected greater than or equal to 0; given -1"


def test_a_validation_split_is_another_trial_and_none_is_the_same(load: Load) -> None:
    """Held-out images change what is learned and what is tested; `validation: 0` says what saying nothing does."""
    ids = [
        load(benchmarks=f"{{r-digits: {settings}}}").trials[0].trial_id
        for settings in ("{}", "{validation: 0}", "{validation: 100}", "{validation: 200}")
    ]
    assert ids[0] == ids[1]
    assert len(set(ids)) == 3


def test_a_sweep_that_moved_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Into the folder of a paper, say; what lies in a folder of the same name is meant before what does not."""
    monkeypatch.chdir(tmp_path)
    for name in ("paper/table1", "paper/small/table1", "paper/small/table2", "other/deep/table3"):
        file = Path("sweeps", f"{name}.yaml")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("seeds: [0]")
    for given, meant in (
        ("sweeps/table1.yaml", "paper/table1"),
        ("sweeps/small/table1.yaml", "paper/small/table1"),
        ("sweeps/gone/table2.yaml", "paper/small/table2"),
        ("table3.yaml", "other/deep/table3"),
        (tmp_path / "sweeps/table3.yaml", "other/deep/table3"),
    ):
        with pytest.raises(UserError, match=f"{given}: expected a file, .*; there is .*sweeps/{meant}.yaml$"):
            load_sweep(Path(given))
    for given in ("sweeps/table4.yaml", "/table1.yml"):
        with pytest.raises(UserError, match=r"expected a YAML file that can be read"):
            load_sweep(Path(given))
