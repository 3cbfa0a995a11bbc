"""Checks that a bank's parts belong together, as far as possible without drawing the frozen weights.

Shapes: T tasks, m classes, d values per image.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, TypeAlias

import torch

from crwn.context_files import recipe_of
from crwn.context_networks import check_size, kept_by, tells_tasks
from crwn.context_parts import ContextParts
from crwn.faults import InvalidError
from crwn.methods.protocol import Tensors
from crwn.methods.starts import FROM
from crwn.trial_spec import TrialSpec

Sizes: TypeAlias = Mapping[str, tuple[tuple[int, ...], torch.dtype]]
"""Shape and dtype by name."""


def check(bank: ContextParts, largest: int) -> None:
    """Check that all of a bank's parts belong together; see `ContextBank.check`.

    Args:
        bank: the bank.
        largest: the most bytes of its network.
    """
    first = bank.any_trial
    for trial in bank.trials.values():
        check_size(trial, largest)
        check_alike(trial, first)
    for task in bank.tasks:
        problem = bank.trials[task.trial_id].benchmark.problem()
        if task.index >= problem.num_tasks:
            message = f"task {task.name!r}: expected one of the trial's {problem.num_tasks}, given {task.index}"
            raise InvalidError("not-the-trials-task", f"contexts: {message}")
        if len(task.classes) != problem.num_classes:
            message = f"expected {problem.num_classes} classes, given {len(task.classes)}"
            raise InvalidError("not-a-name-per-class", f"contexts: task {task.name!r}: {message}")
    if bank.arrays:
        arrays = first.blueprint().backbone.arrays
        _check_sizes("backbone", bank.arrays, {array.name: (array.shape, torch.float32) for array in arrays})
    if bank.mean_images is not None:
        check_mean_images(bank.mean_images, bank.num_tasks, first)
    _check_tensors(bank)
    for name, tensor in (*bank.tensors.items(), *bank.arrays.items()):
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise InvalidError("not-finite", f"contexts: expected finite numbers, given others in {name}")


def check_mergeable(bank: ContextParts, other: ContextParts) -> None:
    """Check that the tasks of `bank` can be in one bank with those of `other`.

    Raises:
        ValueError: they cannot.
    """
    if bank.fingerprint != other.fingerprint:
        raise InvalidError(
            "other-backbone",
            f"bank: expected one of the frozen weights with the fingerprint {other.fingerprint}, given "
            f"{bank.fingerprint}; banks of one seed, method and scale have the same",
        )
    check_alike(bank.any_trial, other.any_trial)
    given, expected = bank.shared, other.shared
    if given.keys() != expected.keys() or any(not torch.equal(given[name], expected[name]) for name in expected):
        raise InvalidError(
            "other-shared-weights",
            "bank: expected the same weights that tasks share, given others; such tasks come from one trial",
        )
    if bank.own.keys() != other.own.keys():
        raise InvalidError("tensors-do-not-fit", "bank: expected one with the same tensors of each task")


def check_comparable(bank: ContextParts, *, starts_alike: bool) -> None:
    """Check that what a bank's tasks learned can be compared.

    Args:
        bank: the bank.
        starts_alike: whether all tasks had the same initial values.

    Raises:
        ValueError: tasks started apart, from their own draws or from each other, and the loss is not convex.
    """
    if all(trial.blueprint().is_convex for trial in bank.trials.values()):
        return
    if not starts_alike or bool((bank.own.get(FROM, torch.tensor(-1)) >= 0).any()):
        raise InvalidError(
            "tasks-started-apart",
            "by: expected tasks that started alike, given some that did not: what they learned stays near where they "
            "started, so they are no more similar than chance; train them with context_start: shared, or compare them "
            "by='answers'",
        )


def check_alike(trial: TrialSpec, other: TrialSpec) -> None:
    """Check that tasks of two trials can be in one bank: same method, network and kind of images.

    Raises:
        ValueError: they cannot.
    """
    if trial == other:
        return
    given, expected = _network_of(trial), _network_of(other)
    if different := [name for name in expected if given[name] != expected[name]]:
        name = different[0]
        shown = [json.dumps(each[name], default=str)[:200] for each in (expected, given)]
        raise InvalidError(
            "other-network",
            f"bank: expected trials of one network, given others: {name} is {shown[0]} in {other.trial_id} and "
            f"{shown[1]} in {trial.trial_id}",
        )


def check_mean_images(images: torch.Tensor, num_tasks: int, trial: TrialSpec) -> None:
    """Check that mean images are unsigned bytes [T, d].

    Raises:
        ValueError: they are not.
    """
    expected = (num_tasks, trial.benchmark.problem().input_size)
    if tuple(images.shape) != expected or images.dtype != torch.uint8:
        raise InvalidError(
            "tensors-do-not-fit",
            f"mean_images: expected bytes (uint8) {list(expected)}, given {images.dtype} {list(images.shape)}",
        )


def _network_of(trial: TrialSpec) -> dict[str, Any]:
    """What the tasks of a bank have in common."""
    problem, blueprint = trial.benchmark.problem(), trial.blueprint()
    return {
        "method": trial.method.kind,
        "scale": trial.scale,
        "dtype": trial.training.dtype,
        "images": problem.input_shape,
        "classes": problem.num_classes,
        "normalisation": trial.benchmark.normalisation(),
        "frozen weights": recipe_of(blueprint.backbone),
        "shared weights": blueprint.moves_shared,
        "tasks are told": tells_tasks(trial),
    }


def _check_tensors(bank: ContextParts) -> None:
    """Check names, shapes and dtypes of what is kept against what the method keeps; weights may be left out."""
    kept = kept_by(bank.any_trial)
    own = {name: ((bank.num_tasks, *tensor.shape[1:]), tensor.dtype) for name, tensor in kept.own.items()}
    shared = {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in kept.shared.items()}
    if bank.own or not bank.any_trial.blueprint().keeps_weights:
        _check_sizes("contexts", bank.own, own)
    if bank.shared:
        _check_sizes("shared weights", bank.shared, shared)


def _check_sizes(what: str, given: Tensors, expected: Sizes) -> None:
    """Check that tensors are there, in the expected shapes and dtypes."""
    found = {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in given.items()}
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            wanted, shown = _shown(expected, name), _shown(found, name)
            raise InvalidError("tensors-do-not-fit", f"{what}: expected {name} {wanted}, given {shown}")


def _shown(sizes: Sizes, name: str) -> str:
    if name not in sizes:
        return "none"
    shape, dtype = sizes[name]
    return f"{list(shape)} {str(dtype).removeprefix('torch.')}"
