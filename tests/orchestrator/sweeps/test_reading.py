"""Sweeps: a YAML file in, trials out, or all of its faults."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path

import pytest

from crwn.benchmarks import PRESETS
from crwn.benchmarks.permuted import PermutedSpec
from crwn.benchmarks.rotated import RotatedSpec
from crwn.data import BASE_SETS
from crwn.methods.flynet import FlyNetSpec
from crwn.methods.neuromodnet import NeuroModNetSpec
from crwn.methods.supsup import SupSupSpec
from crwn.spec import TrainingSpec
from crwn.trial_spec import TrialSpec
from orchestrator.errors import UserError
from orchestrator.sweeps.reading import load_sweep
from orchestrator.sweeps.sweep import Resources, Sweep
from tests.orchestrator.sweeps.texts import EXAMPLE, PARTS, Found, text_of
from tests.refusals import refused

SweepFile = Callable[..., Path]
Load = Callable[..., Sweep]
Faults = Callable[..., list[Found]]

PRESET_NAMES = ", ".join(sorted(PRESETS))


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
    import orchestrator.sweeps.reading

    documented = [line.partition("#")[0].strip() for line in (orchestrator.sweeps.reading.__doc__ or "").splitlines()]
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


def test_numbers_may_be_written_in_several_ways(load: Load) -> None:
    """1e-4 is a number, and a whole number does for a real one: the trial is the same."""
    trials = [load(training=f"{{learning_rate: {rate}}}").trials[0] for rate in ("1e-4", "0.0001", "1.0E-4")]
    assert len({trial.trial_id for trial in trials}) == 1
    whole, real = (load(training=f"{{learning_rate: {rate}}}").trials[0] for rate in ("1", "1.0"))
    assert whole.trial_id == real.trial_id


def test_aliases_of_yaml_may_be_used(sweep_file: SweepFile) -> None:
    """An anchor saves writing a block twice."""
    text = text_of(methods="{a: &entry {method: supsup, scales: [FC16]}, b: {method: supsup, scales: [FC32]}}")
    text += "training: &t {batch_size: 4}\n"
    assert [trial.training.batch_size for trial in load_sweep(sweep_file(text)).trials] == [4, 4]


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
    """One message is enough to fix the whole file: every fault with its line, sorted, with the nearest name."""
    entry = "methods.neuromodnet"
    expected = [
        ("line 1, seed", "unknown-key", "given 'seed'; did you mean 'seeds'?"),
        ("line 2, seeds[1]", "too-small", "given -1"),
        ("line 2, seeds[2]", "wrong-type", "given True"),
        ("line 2, seeds[3]", "wrong-type", "given '2'"),
        ("line 2, seeds[4]", "wrong-type", "given 1.0"),
        ("line 3, benchmarks[1]", "unknown-name", "given 'r-mnsit'; did you mean 'r-mnist'?"),
        ("line 3, benchmarks[2]", "unknown-name", "given '3'"),
        ("line 5, methods.neuromodnt", "unknown-name", "given 'neuromodnt'; did you mean 'neuromodnet'?"),
        (f"line 8, {entry}.settings.modulatoin", "unknown-key", "given 'modulatoin'; did you mean 'modulation'?"),
        (f"line 8, {entry}.settings.weight_gain", "too-small", "given -1"),
        (f"line 9, {entry}.training.learning_rate", "wrong-type", "given '0.1'"),
        (f"line 9, {entry}.training.updates_per_task", "too-small", "given 0"),
        (f"line 9, {entry}.training.batch_size", "wrong-type", "given 2.0"),
        (f"line 9, {entry}.training.dtype", "unknown-name", "given 'float23'; did you mean 'float32'?"),
        (f"line 11, {entry}.variants.a.setings", "unknown-key", "given 'setings'; did you mean 'settings'?"),
        (f"line 12, {entry}.variants.c", "wrong-type", "given 3"),
        ("line 13, methods.other.method", "unknown-name", "given 'flynett'; did you mean 'flynet'?"),
        ("line 14, methods.flynet", "repeated-key", "line 15"),
        ("line 14, methods.flynet.scales", "empty", ""),
        ("line 16, training.learnin_rate", "unknown-key", "given 'learnin_rate'; did you mean 'learning_rate'?"),
        ("line 16, training.batch_size", "wrong-type", "given nan"),
        ("line 17, resources.gpus", "too-small", "given -1"),
        ("line 17, resources.cpu", "unknown-key", "given 'cpu'; did you mean 'cpus'?"),
        ("line 18, reference", "unknown-name", "given 'neuromodnets'; did you mean 'neuromodnet'?"),
        ("line 19, keep_weights", "wrong-type", "given 1"),
    ]
    found = faults(MANY_FAULTS)
    assert sorted((fault.where, fault.codes) for fault in found) == sorted(
        (where, (code,)) for where, code, _ in expected
    )
    messages = {fault.where: fault.message for fault in found}
    assert all(fact in messages[where] for where, _, fact in expected)
    lines = [int(fault.split(",")[0].removeprefix("line ")) for fault in found]
    assert lines == sorted(lines)


def test_the_first_line_counts_the_faults(sweep_file: SweepFile) -> None:
    """It names the file and says that nothing was started."""
    file = sweep_file(text_of(seeds="[0, -1, -2]"))
    with pytest.raises(UserError) as error:
        load_sweep(file)
    assert str(error.value).startswith(f"{file}: 2 faults")


@pytest.mark.parametrize("text", ["", "# nothing\n", "[a, b]\n", "text\n", "3\n"])
def test_a_file_that_is_no_sweep_is_refused(faults: Faults, text: str) -> None:
    """An empty file and a list have no keys."""
    (fault,) = faults(text)
    assert (fault.where, fault.codes) == ("line 1, the file", ("not-a-sweep",))


def test_missing_keys_are_named(faults: Faults) -> None:
    """The required keys of a sweep and of an entry."""
    found = [*faults("name: a\n"), *faults(methods="{supsup: {}}")]
    assert [fault.where for fault in found] == [
        *(f"line 1, {key}" for key in ("seeds", "benchmarks", "methods")),
        "line 3, methods.supsup.scales",
    ]
    assert {fault.codes for fault in found} == {("missing-key",)}


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
    assert (fault.where, fault.codes) == (place, ("no-benchmark" if "benchmarks" in parts else "empty",))


@pytest.mark.parametrize(
    ("part", "value", "place", "code", "fact"),
    [
        ("seeds", "3", "", "wrong-type", "given 3"),
        ("seeds", "[0, .nan]", "[1]", "wrong-type", "given nan"),
        ("training", "[1]", "", "wrong-type", "given [1]"),
        ("training", "{learning_rate: true}", ".learning_rate", "wrong-type", "given True"),
        ("training", "{learning_rate: '0.1'}", ".learning_rate", "wrong-type", "given '0.1'"),
        ("training", "{learning_rate: .nan}", ".learning_rate", "not-finite", "given nan"),
        ("training", "{learning_rate: .inf}", ".learning_rate", "not-finite", "given inf"),
        ("training", "{learning_rate: 1e999}", ".learning_rate", "not-finite", "given inf"),
        ("training", "{learning_rate: 0}", ".learning_rate", "too-small", "given 0"),
        ("training", "{learning_rate: -1e-4}", ".learning_rate", "too-small", "given -0.0001"),
        ("training", "{updates_per_task: 2.0}", ".updates_per_task", "wrong-type", "given 2.0"),
        ("training", "{updates_per_task: 1e3}", ".updates_per_task", "wrong-type", "given 1000.0"),
        ("training", "{batch_size: 0}", ".batch_size", "too-small", "given 0"),
        ("training", "{batch_size: yes}", ".batch_size", "wrong-type", "given True"),
        ("training", "{batch_size: -1}", ".batch_size", "too-small", "given -1"),
        ("training", "{optimizer: adamw}", ".optimizer", "unknown-name", "given 'adamw'"),
        ("benchmarks", "r-digits", "", "no-benchmark", ""),
        ("benchmarks", "{r-digits: {num_tasks: -6}}", ".r-digits.num_tasks", "too-small", ""),
        ("benchmarks", "{r-digits: {num_tasks: '6'}}", ".r-digits.num_tasks", "wrong-type", "given '6'"),
        ("benchmarks", "{r-digits: 6}", ".r-digits", "wrong-type", "given 6"),
        ("methods", "[supsup]", "", "wrong-type", "given ['supsup']"),
        ("methods", "{supsup: }", ".supsup", "wrong-type", "given None"),
        ("methods", "{supsup: {scales: FC16}}", ".supsup.scales", "wrong-type", "given 'FC16'"),
        (
            "methods",
            "{flynet: {scales: [1d], settings: [a]}}",
            ".flynet.settings",
            "wrong-type",
            "given ['a']",
        ),
        ("methods", "{flynet: {scales: [1d], training: 3}}", ".flynet.training", "wrong-type", "given 3"),
        (
            "methods",
            "{flynet: {scales: [1d], variants: [a]}}",
            ".flynet.variants",
            "wrong-type",
            "given ['a']",
        ),
        ("name", "3", "", "wrong-type", "given 3"),
        ("store", "3", "", "wrong-type", "given 3"),
        ("reference", "3", "", "wrong-type", "given 3"),
        ("reference", "[neuromodnet]", "", "wrong-type", "given ['neuromodnet']"),
        ("keep_weights", "'yes'", "", "wrong-type", "given 'yes'"),
        ("keep_weights", "1", "", "wrong-type", "given 1"),
        ("resources", "[1]", "", "wrong-type", "given [1]"),
        ("resources", "{gpus: 1.5}", "", "gpus-no-share", "gpus: "),
        ("resources", "{gpus: -0.5}", ".gpus", "too-small", "given -0.5"),
        ("resources", "{gpus: .inf}", ".gpus", "not-finite", "given inf"),
        ("resources", "{gpus: '1'}", ".gpus", "wrong-type", "given '1'"),
        ("resources", "{cpus: 0}", ".cpus", "too-small", "given 0"),
    ],
)
def test_a_value_of_the_wrong_kind_is_refused(
    faults: Faults, part: str, value: str, place: str, code: str, fact: str
) -> None:
    """Text is no number, a truth value no count, a fraction no integer, and nothing is infinite or negative."""
    (found,) = faults(**{part: value})
    line = list({**PARTS, part: value}).index(part) + 1
    assert (found.where, found.codes) == (f"line {line}, {part}{place}", (code,))
    assert fact in found.message


@pytest.mark.parametrize(
    ("parts", "place", "given", "quoted"),
    [
        ({"name": "2026"}, "line 4, name", "2026", "2026"),
        ({"name": "1e3"}, "line 4, name", "1000.0", "1e3"),
        ({"store": "yes"}, "line 4, store", "True", "yes"),
        ({"reference": "off"}, "line 4, reference", "False", "off"),
        ({"reference": "0x10"}, "line 4, reference", "16", "0x10"),
        ({"methods": "{mtl: {scales: [no]}}"}, "line 3, methods.mtl.scales[0]", "False", "no"),
        ({"methods": "{mtl: {scales: [FC16], benchmarks: [~]}}"}, "line 3, methods.mtl.benchmarks[0]", "nothing", "~"),
    ],
)
def test_a_text_that_yaml_reads_as_something_else_is_to_be_quoted(
    faults: Faults, parts: dict[str, str], place: str, given: str, quoted: str
) -> None:
    """A name like a number or a truth value: the message says how it was read and what to write."""
    (fault,) = (fault for fault in faults(**parts) if fault.where == place)
    assert fault.codes == ("wrong-type",)
    assert f"given {given}" in fault.message
    assert fault.endswith(f": '{quoted}'")


@pytest.mark.parametrize("base", ["off", "1", "null"])
def test_a_variant_may_have_any_name_in_quotes(load: Load, faults: Faults, base: str) -> None:
    """As a key it is text; as a value it has to be quoted, and is not taken for no base at all."""
    methods = "{neuromodnet: {scales: [FC16], base: BASE, variants: {other: , NAME: {settings: {modulation: local}}}}}"
    methods = methods.replace("NAME", base)
    (fault,) = faults(methods=methods.replace("BASE", base))
    assert (fault.where, fault.codes) == (
        "line 3, methods.neuromodnet.base",
        ("label-unquoted" if base == "null" else "wrong-type",),
    )
    assert fault.endswith(f": '{base}'")
    assert load(methods=methods.replace("BASE", f"'{base}'")).cells[0].base == base


def test_a_reference_called_null_is_to_be_quoted(load: Load, faults: Faults) -> None:
    """Written plainly it means none."""
    methods = "{null: {method: mtl, scales: [FC16]}}"
    (fault,) = faults(methods=methods, reference="null")
    assert (fault.where, fault.codes) == ("line 4, reference", ("label-unquoted",))
    assert fault.endswith(": 'null'")
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
    expected = [
        ("line 1, seeds[0]", "given 010; write 10 (or 0o10 for 8)"),
        ("line 1, seeds[1]", "given 011; write 11 (or 0o11 for 9)"),
        ("line 4, training.batch_size", "given 016; write 16 (or 0o16 for 14)"),
        ("line 4, training.learning_rate", "given 1:40; write 100"),
    ]
    for fault, (where, fact) in zip(found, expected, strict=True):
        assert (fault.where, fault.codes) == (where, ("ambiguous-number",))
        assert fact in fault.message


def test_a_list_of_unknown_names_is_refused_as_fast_as_it_is_read(faults: Faults) -> None:
    """Each is a fault; the first are compared with the names that are known, the rest is counted."""
    found = faults(benchmarks=str([f"r-nist{number}" for number in range(3000)]))
    assert found[0].endswith("given 'r-nist0'; did you mean 'r-mnist'?")
    assert len(found) == 50


@pytest.mark.parametrize("part", ["seeds", "scales"])
def test_elements_of_the_wrong_kind_are_the_only_fault_of_their_list(faults: Faults, part: str) -> None:
    """A list of which no element is right is not an empty one as well."""
    parts = {"seeds": "['0']"} if part == "seeds" else {"methods": "{supsup: {scales: [256]}}"}
    (fault,) = faults(**parts)
    assert fault.where.endswith(f"{part}[0]")
    assert fault.codes == ("wrong-type",)


def test_a_seed_must_fit_its_column(faults: Faults) -> None:
    """The store keeps seeds as 64-bit integers: a larger one is refused before it is trained with, not after."""
    (fault,) = faults(seeds=f"[{2**63}]")
    assert (fault.where, fault.codes) == ("line 1, seeds[0]", ("too-large",))


@pytest.mark.parametrize(
    ("benchmarks", "where"),
    [
        ("{x: {kind: [a]}}", "line 2, benchmarks.x.kind"),
        ("{x: {preset: {a: 1}}}", "line 2, benchmarks.x.preset"),
        ("[[r-digits]]", "line 2, benchmarks[0]"),
        ("[{preset: r-digits}]", "line 2, benchmarks[0]"),
    ],
)
def test_a_name_that_is_no_text_is_refused(faults: Faults, benchmarks: str, where: str) -> None:
    """A list or an object in the place of a name is a fault like any other."""
    first = faults(benchmarks=benchmarks)[0]
    assert (first.where, first.codes) == (where, ("unknown-name",))


def test_a_methods_name_that_is_no_text_is_refused(faults: Faults) -> None:
    """`method:` with a list is a fault like any other."""
    first = faults(methods="{x: {method: [supsup], scales: [FC16]}}")[0]
    assert (first.where, first.codes) == ("line 3, methods.x.method", ("wrong-type",))


@pytest.mark.parametrize(
    ("benchmarks", "place", "code", "facts"),
    [
        ("[r-mnits]", "[0]", "unknown-name", [PRESET_NAMES, "'r-mnits'", "'r-mnist'"]),
        ("{x: {preset: r-mnits}}", ".x.preset", "unknown-name", [PRESET_NAMES, "'r-mnits'"]),
        (
            "{x: {kind: rotate}}",
            ".x.kind",
            "unknown-name",
            ["permuted, rotated, sequential, split, turning", "'rotate'", "'rotated'"],
        ),
        ("{x: {num_tasks: 3}}", ".x", "unknown-name", [PRESET_NAMES, "'x'"]),
        ("{x: }", ".x", "unknown-name", [PRESET_NAMES, "'x'"]),
        ("{x: {kind: rotated, preset: r-mnist}}", ".x", "preset-and-kind", ["preset", "kind"]),
        ("{x: {kind: permuted, base: mnits}}", ".x.base", "unknown-name", ["digits, mnist", "'mnits'", "'mnist'"]),
        (
            "{p-digits: {step_degrees: 3}}",
            ".p-digits.step_degrees",
            "unknown-key",
            ["base, first, normalise, num_tasks, task_known, tests"],
        ),
        (
            "{r-digits: {nmu_tasks: 3}}",
            ".r-digits.nmu_tasks",
            "unknown-key",
            ["angles, base, first, normalise, num_tasks, step_degrees"],
        ),
    ],
)
def test_a_benchmark_that_is_not_known_is_refused(
    faults: Faults, benchmarks: str, place: str, code: str, facts: list[str]
) -> None:
    """Presets, kinds, base sets and settings are checked by name."""
    (found,) = faults(benchmarks=benchmarks)
    assert (found.where, found.codes) == (f"line 2, benchmarks{place}", (code,))
    assert all(fact in found.message for fact in facts)


@pytest.mark.parametrize("settings", ["{num_tasks: 37}", "{step_degrees: 30}", "{num_tasks: 5, step_degrees: 90}"])
def test_rotations_beyond_a_full_turn_are_refused(faults: Faults, settings: str) -> None:
    """They would repeat tasks; the message says how far they go."""
    (fault,) = faults(benchmarks=f"{{r-digits: {settings}}}")
    assert (fault.where, fault.codes) == ("line 2, benchmarks.r-digits", ("full-turn",))


def test_a_full_turn_is_allowed(load: Load) -> None:
    """The last task of 36 by 10 degrees is at 350."""
    assert (
        load(benchmarks="{r-digits: {num_tasks: 12, step_degrees: 30}}").trials[0].benchmark.problem().num_tasks == 12
    )


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
    assert fault.codes == ("label-not-printable",)


def test_a_label_of_any_length_is_no_label(faults: Faults) -> None:
    """One that no table or figure has room for is refused where it stands, in a line that is short itself."""
    load = "{preset: r-digits}"
    (fault,) = faults(benchmarks=f"{{? {'x' * 5000} : {load}}}")
    assert fault.startswith("line 2, benchmarks.xxx")
    assert fault.codes == ("label-too-long",)
    assert "5,000" in fault
    assert len(fault) < 250
    others = faults(benchmarks=f"{{{'x' * 100}: {load}, a: {{preset: x}}}}")
    assert [fault.codes for fault in others] == [("unknown-name",)]


@pytest.mark.parametrize("label", ["method", "variant", "scale", "network", "params/task", "ratio"])
def test_a_benchmark_cannot_be_called_like_a_column(faults: Faults, label: str) -> None:
    """In the table its accuracies would take the place of the column of that name."""
    (fault,) = faults(benchmarks=f"{{{label}: {{preset: r-digits}}}}")
    assert (fault.where, fault.codes) == (f"line 2, benchmarks.{label}", ("label-reserved",))


@pytest.mark.parametrize("name", ["'a b'", "'../a'", "''", "'.hidden'", "-a", "'a/b'", "é", '"a\\n"'])
def test_a_name_that_makes_no_file_name_is_refused(faults: Faults, name: str) -> None:
    """The manifest and the tables are files of that name."""
    (fault,) = faults(name=name)
    assert (fault.where, fault.codes) == ("line 4, name", ("name-no-filename",))


def test_a_file_whose_name_makes_no_sweeps_name_is_refused(sweep_file: SweepFile) -> None:
    """Where the file gives no name, its own must do."""
    with refused(UserError, "name-no-filename", says=["`name:`", "'my sweep'"]):
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
    assert fault.where == "line 4, store"
    assert fault.codes == ("address-with-credentials" if "hidden" in store else "address-unknown",)
    assert "hidden" not in fault


@pytest.mark.parametrize(
    ("reference", "code", "facts"),
    [
        ("mlt", "unknown-name", ["mtl, other, supsup", "'mlt'", "'mtl'"]),
        ("FC16", "unknown-name", ["mtl, other, supsup", "'FC16'"]),
        ("supsup", "reference-is-several", ["'supsup'"]),
        ("other", "reference-is-several", ["'other'"]),
    ],
)
def test_a_reference_must_be_one_row(faults: Faults, reference: str, code: str, facts: list[str]) -> None:
    """A label of this file, with one scale and without variants, or there would be several numbers to compare with."""
    methods = (
        "{mtl: {scales: [FC16]}, supsup: {scales: [FC16, FC32]}, "
        "other: {method: neuromodnet, scales: [FC16], variants: {a: , b: {settings: {modulation: local}}}}}"
    )
    (fault,) = faults(methods=methods, reference=reference)
    assert (fault.where, fault.codes) == ("line 4, reference", (code,))
    assert all(fact in fault.message for fact in facts)


def test_a_faulty_entry_is_not_an_unknown_reference(faults: Faults) -> None:
    """Its own fault is enough: once fixed, there is something to compare with."""
    for entry in ("{scales: [FC16], settings: [a]}", "{method: mlt, scales: [FC16]}", "3"):
        (fault,) = faults(methods=f"{{mtl: {entry}, supsup: {{scales: [FC16]}}}}", reference="mtl")
        assert fault.startswith("line 3, methods.mtl")


@pytest.mark.parametrize("kind", ["r-digits", "p-digits"])
def test_a_validation_split_leaves_images_to_train_on(load: Load, faults: Faults, kind: str) -> None:
    """All of them held out is one too many; the message says how many there are."""
    num_train = BASE_SETS["digits"].num_train
    assert (
        load(benchmarks=f"{{{kind}: {{validation: {num_train - 1}}}}}").trials[0].benchmark.validation == num_train - 1
    )
    (fault,) = faults(benchmarks=f"{{{kind}: {{validation: {num_train}}}}}")
    assert (fault.where, fault.codes) == (f"line 2, benchmarks.{kind}", ("validation-takes-all",))
    assert all(fact in fault.message for fact in ("validation: ", "'digits'", f"given {num_train}"))
    (fault,) = faults(benchmarks=f"{{{kind}: {{validation: -1}}}}")
    assert (fault.where, fault.codes) == (f"line 2, benchmarks.{kind}.validation", ("too-small",))


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
        with refused(UserError, "file-elsewhere", says=[f"{given}: ", f"sweeps/{meant}.yaml"]):
            load_sweep(Path(given))
    for given in ("sweeps/table4.yaml", "/table1.yml"):
        with refused(UserError, "file-unreadable", says=given):
            load_sweep(Path(given))
