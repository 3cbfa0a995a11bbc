"""The benchmarks that a sweep can name."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch

from crwn.benchmarks import BENCHMARKS, PRESETS, benchmark_name
from crwn.benchmarks.items import ItemsSpec
from crwn.benchmarks.permuted import PermutedSpec
from crwn.benchmarks.rotated import RotatedSpec
from crwn.benchmarks.sequential import SequentialSpec
from crwn.benchmarks.split import SplitSpec
from crwn.benchmarks.turning import TurningSpec
from crwn.data import Datasets
from crwn.data.digits import DIGITS
from crwn.faults import InvalidError
from crwn.spec import BenchmarkSpec, ProblemShape, canonical_json
from tests.refusals import refused


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_benchmark_is_under_its_own_kind(name: str) -> None:
    """The registry's name is the `kind` in the JSON, and the spec offers what a trial needs."""
    spec = BENCHMARKS[name].spec()
    assert spec.kind == name
    assert isinstance(spec, BenchmarkSpec)


def test_the_presets_are_those_of_the_papers_and_their_twins() -> None:
    """r-mnist has 36 tasks by 10 degrees, p-mnist 100, the splits 20; twins are on embedded data.

    Mammoth's have 20 tasks whose identity is not told, and pixels from 0 to 1.
    """
    in_domains = {"num_tasks": 20, "task_known": False, "normalise": False}
    assert dict(PRESETS) == {
        "r-mnist": RotatedSpec(base="mnist", num_tasks=36, step_degrees=10.0),
        "p-mnist": PermutedSpec(base="mnist", num_tasks=100),
        "r-digits": RotatedSpec(base="digits", num_tasks=36, step_degrees=10.0),
        "p-digits": PermutedSpec(base="digits", num_tasks=100),
        **{f"split-{base}": SplitSpec(base=base) for base in ("cifar100", "miniimagenet", "tinyimagenet")},
        "superclass-cifar100": SplitSpec(base="cifar100", by="superclass"),
        "split-digits": SplitSpec(base="digits", num_tasks=5, crop_padding=0, flip=False),
        **{f"r-{base}-domain": RotatedSpec(base=base, angles="random", **in_domains) for base in ("mnist", "digits")},
        **{f"p-{base}-domain": PermutedSpec(base=base, **in_domains) for base in ("mnist", "digits")},
        **{f"seq-{base}": SequentialSpec(base=base) for base in ("mnist", "digits")},
        "seq-cifar100": SequentialSpec(
            base="cifar100", num_tasks=10, crop_padding=4, flip=True, normalise=True, channels=3
        ),
        "mnist-360": TurningSpec(base="mnist", test_every=500),
        "digits-360": TurningSpec(base="digits", test_every=20),
        "items-mnist": ItemsSpec(base="mnist", num_tasks=10, noise=0.5, images=500, pool=2),
        "items-digits": ItemsSpec(base="digits", num_tasks=10, noise=0.5, images=100, test_images=100, pool=1),
    }


@pytest.mark.parametrize(
    ("name", "input_shape", "num_tasks"),
    [
        ("r-mnist", (1, 28, 28), 36),
        ("p-mnist", (1, 28, 28), 100),
        ("r-digits", (1, 8, 8), 36),
        ("p-digits", (1, 8, 8), 100),
    ],
)
def test_sizes_are_known_without_data(name: str, input_shape: tuple[int, int, int], num_tasks: int) -> None:
    """The shapes that methods are planned from."""
    sizes = (60_000 if name.endswith("mnist") else 1437,) * num_tasks
    expected = ProblemShape(input_shape=input_shape, num_classes=10, num_tasks=num_tasks, segment_sizes=sizes)
    assert PRESETS[name].problem() == expected
    held_out = dataclasses.replace(PRESETS[name], validation=200)  # type: ignore[type-var]  # a frozen spec
    assert held_out.problem().segment_sizes == tuple(size - 200 for size in sizes)


@pytest.mark.parametrize("kind", BENCHMARKS)
def test_what_is_built_is_as_large_as_was_known(digits: Datasets, kind: str) -> None:
    """Tests, segments, their images and labels: without data and with them."""
    spec = BENCHMARKS[kind].spec(base="digits", **{"split": {"num_tasks": 5}}.get(kind, {}))
    problem = spec.problem()
    built = BENCHMARKS[kind].build(spec, digits.load("digits"), 0, torch.device("cpu"))
    assert (built.num_tasks, built.num_segments) == (problem.num_tasks, problem.num_segments)
    assert problem.segment_sizes == tuple(map(built.num_examples, range(problem.num_segments)))
    assert (built.test_every > 0) == problem.is_stream
    some_classes = set()
    for task in (0, problem.num_tasks - 1):
        assert (
            set(built.test_split(task).labels.tolist()) <= set(built.classes(task)) <= set(range(problem.num_classes))
        )
        some_classes |= set(built.classes(task))
    for segment in (0, problem.num_segments - 1):
        split = built.train_split(segment)
        assert split.num_examples == built.num_examples(segment)
        assert set(split.labels.tolist()) <= some_classes
    last_two = range(problem.num_segments - 2, problem.num_segments)
    assert built.mixture(last_two).num_examples == sum(map(built.num_examples, last_two))


@pytest.mark.parametrize("kind", ["rotated", "permuted", "split", "sequential"])
def test_the_first_tasks_are_those_of_the_whole_sequence(digits: Datasets, kind: str) -> None:
    """A sequence that is cut shows the same images and labels, task by task; cut to all of it, it is refused."""
    entry = BENCHMARKS[kind]
    spec, images = entry.spec(base="digits", num_tasks=5), digits.load("digits")
    cut = dataclasses.replace(spec, first=2)
    assert (cut.problem().num_tasks, cut.problem().num_segments) == (2, 2)
    assert cut.problem().segment_sizes == spec.problem().segment_sizes[:2]
    assert cut.problem().num_classes == spec.problem().num_classes
    whole, part = (entry.build(each, images, 3, torch.device("cpu")) for each in (spec, cut))
    assert part.num_tasks == part.num_segments == 2
    for task in range(2):
        for one, other in (
            (whole.train_split(task), part.train_split(task)),
            (whole.test_split(task), part.test_split(task)),
        ):
            assert torch.equal(one.images, other.images)
            assert torch.equal(one.labels, other.labels)
    for first in (5, 6):
        with refused(InvalidError, "first-not-fewer", says=["first: ", "5 tasks", str(first)]):
            dataclasses.replace(spec, first=first)
    assert '"first"' not in canonical_json(spec) or kind == "sequential"


@pytest.mark.parametrize("kind", BENCHMARKS)
def test_pixels_are_normalised_or_numbers_from_0_to_1(kind: str) -> None:
    """By the base set's mean and deviation, or by nothing, whatever the default."""
    spec = BENCHMARKS[kind].spec(base="digits", **{"split": {"num_tasks": 5}}.get(kind, {}))
    pixels = torch.tensor([0, 51, 255], dtype=torch.uint8)
    for normalise, expected in ((True, DIGITS.normalisation(pixels, torch.float64)), (False, pixels.double() / 255)):
        found = dataclasses.replace(spec, normalise=normalise).normalisation()(pixels, torch.float64)
        assert torch.allclose(found, expected, rtol=0, atol=1e-15)


@pytest.mark.parametrize("kind", ["rotated", "permuted"])
def test_a_task_that_is_not_told_is_another_scenario(kind: str) -> None:
    """The images are the same; labels mean the same in every task."""
    told, untold = (BENCHMARKS[kind].spec(task_known=known).problem() for known in (True, False))
    assert (told.scenario, untold.scenario) == ("task", "domain")
    assert dataclasses.replace(untold, scenario="task") == told


@pytest.mark.parametrize("kind", ["rotated", "permuted"])
def test_a_task_that_is_told_is_not_tested_ahead(kind: str) -> None:
    """What it would be tested with may be its own, and not be there yet; a problem says that it is asked for."""
    assert BENCHMARKS[kind].spec(task_known=False, tests_ahead=True).problem().tests_ahead
    with refused(InvalidError, "tests-ahead-of-told-tasks", says=["tests_ahead: ", "`task_known: false`"]):
        BENCHMARKS[kind].spec(tests_ahead=True)


@pytest.mark.parametrize("spec", [RotatedSpec, PermutedSpec])
def test_wrong_fields_are_refused(spec: type) -> None:
    """A base set that is not grey or not known, and a benchmark without tasks."""
    with refused(InvalidError, "unknown-name", "too-small", says=["base: ", "'cifar100'", "num_tasks: "]):
        spec(base="cifar100", num_tasks=0)


@pytest.mark.parametrize("name", PRESETS)
def test_a_benchmark_is_called_as_its_preset_is(name: str) -> None:
    """However many tasks it has; held-out images are said, and what has no preset is called by kind and base set."""
    said = json.loads(canonical_json(PRESETS[name])) | {"kind": PRESETS[name].kind}
    assert benchmark_name(said) == name
    assert benchmark_name({**said, "num_tasks": 3}) == name
    assert benchmark_name({**said, "validation": 10}) == f"{name}-validation"
    assert benchmark_name({**said, "base": "other"}) == f"{said['kind']}-other"
