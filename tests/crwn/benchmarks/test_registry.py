"""The benchmarks that a sweep can name."""

from __future__ import annotations

import pytest

from crwn.benchmarks import BENCHMARKS, PRESETS
from crwn.benchmarks.permuted import PermutedSpec
from crwn.benchmarks.rotated import RotatedSpec
from crwn.benchmarks.split import SplitSpec
from crwn.spec import BenchmarkSpec, ProblemShape


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_benchmark_is_under_its_own_kind(name: str) -> None:
    """The registry's name is the `kind` in the JSON, and the spec offers what a trial needs."""
    spec = BENCHMARKS[name].spec()
    assert spec.kind == name
    assert isinstance(spec, BenchmarkSpec)


def test_the_presets_are_those_of_the_paper_and_their_twins() -> None:
    """R-MNIST has 36 tasks by 10 degrees, P-MNIST 100, the splits 20; the twins are on embedded data."""
    assert dict(PRESETS) == {
        "r-mnist": RotatedSpec(base="mnist", num_tasks=36, step_degrees=10.0),
        "p-mnist": PermutedSpec(base="mnist", num_tasks=100),
        "r-digits": RotatedSpec(base="digits", num_tasks=36, step_degrees=10.0),
        "p-digits": PermutedSpec(base="digits", num_tasks=100),
        **{f"split-{base}": SplitSpec(base=base) for base in ("cifar100", "miniimagenet", "tinyimagenet")},
        "split-digits": SplitSpec(base="digits", num_tasks=5, crop_padding=0, flip=False),
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
    expected = ProblemShape(input_shape=input_shape, num_classes=10, num_tasks=num_tasks)
    assert PRESETS[name].problem() == expected


@pytest.mark.parametrize("spec", [RotatedSpec, PermutedSpec])
def test_wrong_fields_are_refused(spec: type) -> None:
    """A base set that is not grey or not known, and a benchmark without tasks."""
    with pytest.raises(ValueError, match="base: expected one of 'digits', 'mnist', given 'cifar100'; num_tasks: exp"):
        spec(base="cifar100", num_tasks=0)
