"""A trial as a value: its identity, and the checks of its parts."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import pickle
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import annotated_types
import pydantic
import pytest

from crwn.benchmarks import BENCHMARKS
from crwn.benchmarks.items import ItemsSpec
from crwn.benchmarks.permuted import PermutedSpec
from crwn.benchmarks.rotated import RotatedSpec
from crwn.benchmarks.sequential import SequentialSpec
from crwn.benchmarks.split import SplitSpec
from crwn.benchmarks.turning import TurningSpec
from crwn.faults import InvalidError
from crwn.methods import METHODS
from crwn.methods.batche import BatchESpec
from crwn.methods.flynet import FlyNetSpec
from crwn.methods.mtl import MTLSpec
from crwn.methods.neuromodnet import NeuroModNetSpec
from crwn.methods.protocol import ScaleError
from crwn.methods.psp import PSPSpec
from crwn.methods.stl import STLSpec
from crwn.methods.supsup import SupSupSpec
from crwn.spec import (
    DEFAULT_UPDATES,
    READ_STRICTLY,
    ProblemShape,
    TrainingSpec,
    canonical_json,
    check_fields,
    later_field,
)
from crwn.trial_spec import TrialSpec
from tests.methods import CASES
from tests.methods.case import Case
from tests.refusals import refused

# Identities under which results are stored. If one changes, every stored result of that method is orphaned: change the
# code back, or raise the number in crwn.spec.HASH_PREFIX on purpose and say so in the change log. Those of methods that
# came later are held by their golden traces, which have the whole spec.
PAPER_IDS = {
    "neuromodnet": "eb67f34e77e6191c",
    "flynet": "90d41e6b3467c522",
    "supsup": "33ddc7c8cf1894ea",
    "batche": "c90492a98df9adfa",
    "psp": "3ec45642a583d230",
    "mtl": "65e9ce09a80c997d",
    "stl": "606901f682d3ebd0",
}

DENSE_METHODS = ("batche", "psp", "mtl", "stl")

R_MNIST_JSON = '{"base":"mnist","kind":"rotated","num_tasks":36,"step_degrees":10.0}'
METHOD_JSON = {
    "neuromodnet": (
        '{"context_high":1.0,"context_low":-1.0,"initial_strength":1.0,"kind":"neuromodnet",'
        '"modulation":"local+global","weight_gain":2.0}'
    ),
    "flynet": (
        '{"connectivity":0.1,"context_high":1.0,"context_low":-1.0,"decoder_scale":10.0,"inhibition":1.0,'
        '"initial_strength":1.0,"kind":"flynet","modulation":"local+global"}'
    ),
    "supsup": '{"kind":"supsup"}',
    "batche": '{"first_task_rate":0.0001,"kind":"batche"}',
    "psp": '{"kind":"psp"}',
    "mtl": '{"kind":"mtl","weight_gain":2.0}',
    "stl": '{"kind":"stl","weight_gain":2.0}',
}
LEARNING_RATE_JSON = {name: "0.01" if name in ("neuromodnet", "flynet", "batche") else "0.0001" for name in METHOD_JSON}


def another(hint: Any, value: Any) -> Any:
    """A value that a field may have besides `value`: another choice, or half a number, or one more."""
    kind = get_args(hint)[0] if get_origin(hint) is Annotated else hint
    if get_origin(kind) is Literal:
        return next(choice for choice in get_args(kind) if choice != value)
    if kind is bool:
        return not value
    return value + 1 if kind is int else value / 2 or 0.5


def changes_of(case: Case) -> dict[str, Any]:
    """Every setting of the case's method, but for the kind, with a value that is not its default."""
    hints = get_type_hints(type(case.method), include_extras=True)
    settable = [field.name for field in dataclasses.fields(case.method) if field.init]
    guessed = {name: another(hints[name], getattr(case.method, name)) for name in settable if name not in case.changes}
    return {**guessed, **case.changes}


# Every field of every spec, with a value that is not its default.
CHANGED: dict[type[Any], dict[str, Any]] = {
    **{entry.spec: changes_of(CASES[name]) for name, entry in METHODS.items()},
    RotatedSpec: {
        "base": "digits",
        "num_tasks": 9,
        "step_degrees": 5.0,
        "validation": 100,
        "first": 3,
        "angles": "random",
        "task_known": False,
        "normalise": False,
        "tests_ahead": True,
    },
    PermutedSpec: {
        "base": "digits",
        "num_tasks": 9,
        "validation": 100,
        "first": 3,
        "task_known": False,
        "normalise": False,
        "tests_ahead": True,
    },
    SplitSpec: {
        "base": "tinyimagenet",
        "num_tasks": 10,
        "crop_padding": 2,
        "flip": False,
        "validation": 100,
        "first": 3,
        "normalise": False,
        "by": "superclass",
    },
    SequentialSpec: {
        "base": "digits",
        "num_tasks": 10,
        "order": "drawn",
        "crop_padding": 2,
        "flip": True,
        "normalise": True,
        "channels": 3,
        "pool": 2,
        "validation": 100,
        "first": 3,
    },
    ItemsSpec: {
        "base": "digits",
        "num_tasks": 11,
        "outputs": 40,
        "noise": 0.25,
        "rounds": 3,
        "repeated": "half",
        "poisoned_rounds": 1,
        "new_items": 1,
        "frequency": "graded",
        "images": 400,
        "test_images": 100,
        "pool": 1,
        "normalise": True,
        "validation": 100,
        "features": "alexnet",
        "weights": "0123abcd",
    },
    TurningSpec: {"base": "digits", "test_every": 100, "normalise": True, "channels": 3, "validation": 100},
    TrainingSpec: {
        "learning_rate": 0.5,
        "updates_per_task": 10,
        "batch_size": 64,
        "dtype": "float64",
        "optimizer": "adam",
        "weight_decay": 0.5,
        "schedule": "cosine",
        "momentum": 0.5,
        "epochs_per_task": 2,
    },
}


ALSO: dict[str, dict[str, Any]] = {
    "weight_decay": {"optimizer": "adam"},
    "momentum": {"optimizer": "sgd"},
    "updates_per_task": {"epochs_per_task": 0},
    "epochs_per_task": {"updates_per_task": DEFAULT_UPDATES},
    "tests_ahead": {"task_known": False},
    "repeated": {"rounds": 2},
    "features": {"pool": 1},
    "weights": {"features": "alexnet", "pool": 1},
}
"""What a field of the training or a benchmark is changed with, where it does not stand with every other value."""


def trial(method: Any = None, **changes: Any) -> TrialSpec:
    method = method or NeuroModNetSpec()
    case = CASES[method.kind]
    scale, benchmark = case.table_scale, case.benchmark or RotatedSpec()
    settings = {"benchmark": benchmark, "scale": scale, "seed": 0, "training": method.training(scale)}
    return TrialSpec(method=method, **{**settings, **changes})


@pytest.mark.parametrize("name", PAPER_IDS)
def test_the_identity_of_a_trial_never_changes_by_accident(name: str) -> None:
    """A fixed trial of each method has the identity that it has had since the release that brought it."""
    assert trial(METHODS[name].spec()).trial_id == PAPER_IDS[name]


@pytest.mark.parametrize("name", METHOD_JSON)
def test_canonical_json_is_sorted_compact_and_complete(name: str) -> None:
    """The canonical JSON of the paper's trial, letter by letter."""
    assert trial(METHODS[name].spec()).canonical_json() == (
        f'{{"benchmark":{R_MNIST_JSON},"method":{METHOD_JSON[name]},"scale":"{CASES[name].table_scale}","seed":0,'
        f'"training":{{"batch_size":128,"dtype":"float32","learning_rate":{LEARNING_RATE_JSON[name]},'
        '"optimizer":"rmsprop","updates_per_task":1000}}'
    )


def test_the_identity_is_the_start_of_a_hash_of_the_json() -> None:
    """Other programs can compute the identity: sixteen hexadecimal digits of SHA-256 over prefix and JSON."""
    spec = trial(seed=3)
    assert spec.trial_id == hashlib.sha256(b"crwn-trial-1\n" + spec.canonical_json().encode()).hexdigest()[:16]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (trial(benchmark=RotatedSpec(step_degrees=10)), trial(benchmark=RotatedSpec(step_degrees=10.0))),
        (trial(FlyNetSpec(inhibition=-0.0)), trial(FlyNetSpec(inhibition=0.0))),
        (trial(FlyNetSpec(inhibition=0)), trial(FlyNetSpec(inhibition=0.0))),
        (trial(NeuroModNetSpec(context_low=-0.0)), trial(NeuroModNetSpec(context_low=0))),
        (trial(training=TrainingSpec(learning_rate=1)), trial(training=TrainingSpec(learning_rate=1.0))),
        (trial(training=TrainingSpec(learning_rate=1e-2)), trial(training=TrainingSpec(learning_rate=0.01))),
    ],
    ids=["10", "-0.0", "0", "context", "rate", "exponent"],
)
def test_equal_settings_written_differently_are_the_same_trial(one: TrialSpec, other: TrialSpec) -> None:
    """10 is 10.0 and -0.0 is 0.0: in the value, in the JSON and in the identity."""
    assert one == other
    assert one.canonical_json() == other.canonical_json()
    assert one.trial_id == other.trial_id


@pytest.mark.parametrize("scale", ["FC0256", "FC\N{ARABIC-INDIC DIGIT TWO}56", "FC+256", "FC2_56"])
def test_a_scale_can_be_written_in_one_way_only(scale: str) -> None:
    """A second spelling of FC256 would be a second identity of the same trial."""
    with refused(ScaleError, "unknown-scale", says=["scale: ", "FC256", repr(scale)]):
        trial(scale=scale)


def test_every_field_is_in_the_table_of_changes() -> None:
    """The table that the next test goes through names every field, so that a new one cannot be forgotten."""
    specs = [entry.spec for entry in (*METHODS.values(), *BENCHMARKS.values())] + [TrainingSpec]
    assert set(CHANGED) == set(specs)
    for spec, changes in CHANGED.items():
        hints = get_type_hints(spec)
        settable = {field.name for field in dataclasses.fields(spec) if field.init}
        without_choice = {name for name in settable if len(get_args(hints[name])) == 1}
        assert set(changes) == settable - without_choice, spec


def runs_on(spec: TrialSpec, benchmark: Any) -> bool:
    try:
        dataclasses.replace(spec, benchmark=benchmark)
    except ValueError:  # the method does not exist for it
        return False
    return True


@pytest.mark.parametrize("method", [METHODS[name].spec() for name in METHODS], ids=list(METHODS))
def test_every_field_changes_the_identity(method: Any) -> None:
    """No two trials that differ in one setting share an identity."""
    original = trial(method)
    changed = [dataclasses.replace(original, seed=1)]
    changed += [dataclasses.replace(original, scale=CASES[method.kind].scale)]
    for part in ("method", "training"):
        value = getattr(original, part)
        for name, new in CHANGED[type(value)].items():
            replaced = dataclasses.replace(value, **{**ALSO.get(name, {}), name: new})
            try:
                changed += [dataclasses.replace(original, **{part: replaced})]
            except InvalidError:  # a value for another scenario
                assert canonical_json(replaced) != canonical_json(value)
    benchmarks: list[Any] = [PermutedSpec(num_tasks=36)]
    for benchmark in (RotatedSpec(), PermutedSpec(), SplitSpec(), SequentialSpec()):
        changes = [{**ALSO.get(name, {}), name: new} for name, new in CHANGED[type(benchmark)].items()]
        benchmarks += [benchmark, *(dataclasses.replace(benchmark, **change) for change in changes)]
    others = [other for other in benchmarks if other != original.benchmark and runs_on(original, other)]
    assert others
    changed += [dataclasses.replace(original, benchmark=other) for other in others]

    assert len({spec.trial_id for spec in [original, *changed]}) == 1 + len(changed)


def test_every_field_of_a_benchmark_is_part_of_the_identity() -> None:
    """No two benchmarks that differ in one setting have the same JSON, which is a part of the trial's."""
    benchmarks = [entry.spec() for entry in BENCHMARKS.values()]
    benchmarks += [
        dataclasses.replace(benchmark, **{**ALSO.get(name, {}), name: new})
        for benchmark in benchmarks
        for name, new in CHANGED[type(benchmark)].items()
    ]
    assert len({canonical_json(benchmark) for benchmark in benchmarks}) == len(benchmarks)


def test_methods_of_equal_settings_are_different_trials() -> None:
    """The method's kind is part of the identity, even where all else agrees."""
    training = TrainingSpec(learning_rate=0.01)
    ids = {trial(METHODS[name].spec(), training=training).trial_id for name in METHODS}
    assert len(ids) == len(METHODS)


def test_a_later_field_is_left_out_while_it_says_as_before() -> None:
    """Written out at its default it is the same trial; at another value it is in the JSON, with the value."""

    @dataclass(frozen=True)
    class Grown:
        first: int = 1
        later: float = later_field(0.5)

    assert canonical_json(Grown()) == canonical_json(Grown(later=0.5)) == '{"first":1}'
    assert canonical_json(Grown(later=0.0)) == '{"first":1,"later":0.0}'
    assert canonical_json(Grown(first=2)) == '{"first":2}'


@pytest.mark.parametrize(
    ("original", "same", "other", "expected"),
    [
        (RotatedSpec(), RotatedSpec(validation=0), RotatedSpec(validation=7), '"validation":7'),
        (PermutedSpec(), PermutedSpec(validation=0), PermutedSpec(validation=7), '"validation":7'),
        (NeuroModNetSpec(), NeuroModNetSpec(pretrained=False), NeuroModNetSpec(pretrained=True), '"pretrained":true'),
        (
            NeuroModNetSpec(),
            NeuroModNetSpec(first_task_rate=1e-4),
            NeuroModNetSpec(first_task_rate=1e-3),
            '"first_task_rate":0.001',
        ),
    ],
    ids=["rotated", "permuted", "pretrained", "first_task_rate"],
)
def test_fields_added_later_changed_no_identity(original: Any, same: Any, other: Any, expected: str) -> None:
    """A trial of before has the JSON of before, as the identities above have it too; with the field set it is new."""
    name = expected.split('"')[1]
    assert name not in canonical_json(original)
    assert canonical_json(same) == canonical_json(original)
    assert expected in canonical_json(other)
    settings = json.loads(canonical_json(other))
    del settings[name]
    assert settings == json.loads(canonical_json(original))


@pytest.mark.parametrize("part", ["", "method", "benchmark", "training"])
def test_specs_are_frozen(part: str) -> None:
    """A trial cannot be changed after its identity was computed, neither as a whole nor in a part."""
    spec = trial()
    value = getattr(spec, part) if part else spec
    name = dataclasses.fields(value)[-1].name
    with pytest.raises(dataclasses.FrozenInstanceError, match=f"'{name}'"):
        setattr(value, name, getattr(value, name))


def test_a_spec_travels_to_another_process() -> None:
    """Pickling keeps a spec's value and identity."""
    spec = trial(FlyNetSpec(inhibition=2.0), seed=5)
    copy = pickle.loads(pickle.dumps(spec))  # noqa: S301 (the bytes were made on this line)
    assert copy == spec
    assert copy.trial_id == spec.trial_id


def test_all_faults_are_reported_together() -> None:
    """One error names every wrong field, what was expected there and what was given."""
    with refused(InvalidError, "too-small", "wrong-type", "unknown-name") as caught:
        TrainingSpec(learning_rate=-1, updates_per_task=0, batch_size=True, dtype="float16")
    faults = str(caught.value).split("; ")
    expected = [("learning_rate", "-1.0"), ("updates_per_task", "0"), ("batch_size", "True"), ("dtype", "'float16'")]
    for fault, (name, given) in zip(faults, expected, strict=True):
        assert fault.startswith(f"{name}: ")
        assert fault.endswith(f"given {given}")


def test_rmsprop_has_no_weight_decay() -> None:
    """A sweep that sets it is refused before it starts; so is a negative one."""
    with refused(InvalidError, "setting-of-another-optimizer", says=["weight_decay: ", "rmsprop", "given 0.1"]):
        TrainingSpec(learning_rate=0.01, weight_decay=0.1)
    with refused(InvalidError, "too-small", says=["weight_decay: ", "given -1.0"]):
        TrainingSpec(learning_rate=0.01, optimizer="adam", weight_decay=-1)
    assert TrainingSpec(learning_rate=0.01, optimizer="adam", weight_decay=1).weight_decay == 1.0


def test_only_sgd_has_momentum() -> None:
    """Adam's is its own and fixed; of SGD it is below 1."""
    with refused(InvalidError, "setting-of-another-optimizer", says=["momentum: ", "adam", "given 0.9"]):
        TrainingSpec(learning_rate=0.01, optimizer="adam", momentum=0.9)
    with refused(InvalidError, "too-large", says=["momentum: ", "given 1.0"]):
        TrainingSpec(learning_rate=0.01, optimizer="sgd", momentum=1.0)
    assert TrainingSpec(learning_rate=0.01, optimizer="sgd", momentum=0.9).momentum == 0.9


def test_epochs_and_updates_exclude_each_other() -> None:
    """Both at once are refused, with every other fault; alone, epochs decide how many updates a task takes."""
    with refused(
        InvalidError,
        "setting-of-another-optimizer",
        "epochs-beside-updates",
        says=["momentum: ", "epochs_per_task: ", "given 2"],
    ):
        TrainingSpec(learning_rate=0.01, epochs_per_task=2, updates_per_task=10, momentum=0.5)
    training = TrainingSpec(learning_rate=0.01, epochs_per_task=2, batch_size=10)
    assert training.num_updates(101) == 22
    assert TrainingSpec(learning_rate=0.01, updates_per_task=7).num_updates(101, num_tasks=3) == 21


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_numbers_are_finite(value: float) -> None:
    """Infinity and not-a-number are no settings, whether or not the field has bounds."""
    with refused(InvalidError, "not-finite", says=["learning_rate: ", f"given {value}"]):
        TrainingSpec(learning_rate=value)
    with refused(InvalidError, "not-finite", says=["initial_strength: ", f"given {value}"]):
        NeuroModNetSpec(initial_strength=value)


def test_an_int_too_large_for_a_float_is_a_fault_like_any_other() -> None:
    """A number with hundreds of digits is reported with its field's name."""
    with refused(InvalidError, "wrong-type", says=["learning_rate: ", "float, given 1000"]):
        TrainingSpec(learning_rate=10**400)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounded:
    at_least: Annotated[int, annotated_types.Ge(3)] = 3
    more: Annotated[float, annotated_types.Gt(3)] = 3.5
    at_most: Annotated[int, annotated_types.Le(3)] = 3
    less: Annotated[float, annotated_types.Lt(3)] = 2.5
    flag: bool = True
    text: str = ""
    choice: Literal["a", "b"] = "a"

    def __post_init__(self) -> None:
        check_fields(self)


@pytest.mark.parametrize(
    ("field", "value", "code", "expected"),
    [
        ("at_least", 2, "too-small", "3, given 2"),
        ("more", 3, "too-small", "3, given 3.0"),
        ("at_most", 4, "too-large", "3, given 4"),
        ("less", 3.0, "too-large", "3, given 3.0"),
        ("flag", 1, "wrong-type", "bool, given 1"),
        ("text", 1, "wrong-type", "str, given 1"),
        ("choice", "c", "unknown-name", "'a', 'b', given 'c'"),
        ("choice", None, "unknown-name", "'a', 'b', given None"),
        ("more", True, "wrong-type", "float, given True"),
        ("more", "4", "wrong-type", "float, given '4'"),
        ("at_least", 4.0, "wrong-type", "int, given 4.0"),
        ("at_least", False, "wrong-type", "int, given False"),
    ],
)
def test_a_field_is_held_to_its_annotation(field: str, value: object, code: str, expected: str) -> None:
    """Types, choices and each kind of bound; a bool is no number."""
    with refused(InvalidError, code, says=[f"{field}: ", expected]):
        Bounded(**{field: value})


def test_bounds_that_include_their_limit_allow_it() -> None:
    """At least 3 and at most 3 are both satisfied by 3, which the defaults of the class above are."""
    assert Bounded() == Bounded(at_least=3, at_most=3)


@pytest.mark.parametrize(
    ("changes", "code", "expected"),
    [
        ({"method": "neuromodnet"}, "wrong-type", "MethodSpec, given 'neuromodnet'"),
        ({"benchmark": None}, "wrong-type", "BenchmarkSpec, given None"),
        ({"training": {"learning_rate": 0.1}}, "wrong-type", "TrainingSpec, given {'learning_rate': 0.1}"),
        ({"scale": 256}, "wrong-type", "str, given 256"),
        ({"seed": -1}, "too-small", "0, given -1"),
        ({"seed": True}, "wrong-type", "int, given True"),
    ],
)
def test_the_parts_of_a_trial_are_checked(changes: dict[str, Any], code: str, expected: str) -> None:
    """A part of the wrong kind is named before anything is built from it."""
    settings = {
        "method": NeuroModNetSpec(),
        "benchmark": RotatedSpec(),
        "scale": "FC256",
        "seed": 0,
        "training": TrainingSpec(learning_rate=0.01),
    }
    with refused(InvalidError, code, says=[*(f"{name}: " for name in changes), expected]):
        TrialSpec(**{**settings, **changes})


FC = "FC256 or FC4096"
FAMILIES = "FC256 or FC4096, or, for a ResNet-18, 1d or 6d, nf10 or nf64"


@pytest.mark.parametrize(
    ("method", "scale", "examples"),
    [
        (NeuroModNetSpec(), "FC0", FAMILIES),
        (NeuroModNetSpec(), "10d", FAMILIES),
        (NeuroModNetSpec(), "fc256", FAMILIES),
        (NeuroModNetSpec(), "FC-1", FAMILIES),
        (NeuroModNetSpec(), "FC25.6", FAMILIES),
        (NeuroModNetSpec(), "FC256\n", FAMILIES),
        (NeuroModNetSpec(), "FC1000000", FAMILIES),
        (FlyNetSpec(), "FC256", "10d or 40d"),
        (FlyNetSpec(), "0d", "10d or 40d"),
        (FlyNetSpec(), " 10d", "10d or 40d"),
        (FlyNetSpec(), "10", "10d or 40d"),
        (SupSupSpec(), "", FAMILIES),
        (SupSupSpec(), "FC", FAMILIES),
        *[
            (METHODS[name].spec(), scale, FC if name == "mtl" else FAMILIES)
            for name in DENSE_METHODS
            for scale in ("10d", "FC0", "resnet")
        ],
        (NeuroModNetSpec(pretrained=True), "10d", FAMILIES),
    ],
)
def test_a_scale_of_another_family_is_refused(method: Any, scale: str, examples: str) -> None:
    """A trial that could not be built cannot be written down; the error shows scales that can."""
    with refused(ScaleError, "unknown-scale", says=["scale: ", examples, repr(scale)]):
        trial(method, scale=scale)


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        (NeuroModNetSpec(), ""),
        (FlyNetSpec(), ""),
        (SupSupSpec(), ""),
        *[(METHODS[name].spec(), "") for name in DENSE_METHODS],
        (NeuroModNetSpec(pretrained=True), "pretrained=True"),
        (BatchESpec(first_task_rate=0.01), "first_task_rate=0.01"),
        (NeuroModNetSpec(modulation="local"), "modulation=local"),
        (NeuroModNetSpec(initial_strength=2, context_low=0), "context_low=0.0,initial_strength=2.0"),
        (FlyNetSpec(modulation="global", inhibition=0), "inhibition=0.0,modulation=global"),
        (FlyNetSpec(connectivity=0.1, decoder_scale=10), ""),
    ],
)
def test_the_variant_says_what_differs_from_the_paper(method: Any, expected: str) -> None:
    """Settings that differ from the defaults, sorted by name; the defaults written out are no variant."""
    assert trial(method).variant == expected


def test_the_variant_leaves_out_what_has_columns_of_its_own() -> None:
    """Seed, benchmark and training are not the method's settings."""
    spec = trial(seed=4, benchmark=PermutedSpec(), training=TrainingSpec(learning_rate=0.5))
    assert spec.variant == ""


@pytest.mark.parametrize(
    ("method", "grouping", "moves_shared", "is_continual", "is_independent"),
    [
        (NeuroModNetSpec(), "any", "never", True, True),
        (FlyNetSpec(), "any", "never", True, True),
        (SupSupSpec(), "any", "never", True, True),
        (STLSpec(), "any", "never", True, True),
        (NeuroModNetSpec(pretrained=True), "any", "first segment", True, True),
        (BatchESpec(), "any", "first segment", True, True),
        (PSPSpec(), "one", "always", True, False),
        (MTLSpec(), "all", "always", False, False),
    ],
    ids=lambda value: getattr(value, "kind", None),
)
def test_a_blueprint_says_what_kind_of_method_it_is(
    method: Any, grouping: str, moves_shared: str, *, is_continual: bool, is_independent: bool
) -> None:
    """How tasks can be learned together, what they share, whether they are learned in turn and leave each other be."""
    blueprint = trial(method).blueprint()
    assert (blueprint.grouping, blueprint.moves_shared) == (grouping, moves_shared)
    assert (blueprint.is_continual, blueprint.is_independent) == (is_continual, is_independent)
    assert (blueprint.stored_shared > 0) == (moves_shared != "never")
    assert blueprint.keeps_weights == (method.kind == "stl")


def test_canonical_json_refuses_what_json_cannot_say() -> None:
    """A NaN that passed the checks would give JSON that other programs cannot read."""

    @dataclass(frozen=True)
    class Unchecked:
        value: float

    with pytest.raises(ValueError, match="JSON"):
        canonical_json(Unchecked(math.nan))


def test_the_input_size_counts_all_channels() -> None:
    """d is channels times height times width."""
    assert ProblemShape(input_shape=(3, 32, 16), num_classes=5, num_tasks=20).input_size == 1536


@pytest.mark.parametrize("spec", CHANGED, ids=lambda spec: spec.__name__)
def test_specs_are_read_strictly(spec: type[Any]) -> None:
    """Each spec tells pydantic to refuse unknown keys, and text where a number is expected."""
    assert spec.__pydantic_config__ is READ_STRICTLY
    values = {"learning_rate": 0.1} if spec is TrainingSpec else {}
    adapter = pydantic.TypeAdapter(spec)
    assert adapter.validate_json(json.dumps(values)) == spec(**values)
    with pytest.raises(pydantic.ValidationError, match="unknown"):
        adapter.validate_json(json.dumps({**values, "unknown": 1}))
    for name, value in CHANGED[spec].items():
        if isinstance(value, int | float):
            with pytest.raises(pydantic.ValidationError, match=name):
                adapter.validate_json(json.dumps({**values, name: str(value)}))
