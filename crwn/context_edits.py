"""Edits of banks, which return new ones: selecting tasks, renaming, merging. Nothing is changed in place."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import torch

from crwn import context_checks, context_files
from crwn.context_files import ACTIVITY, SHARED
from crwn.context_parts import ContextParts
from crwn.faults import InvalidError

BankT = TypeVar("BankT", bound=ContextParts)


def selected(bank: BankT, places: Sequence[int]) -> BankT:
    """See `ContextBank.select`.

    Args:
        bank: the bank.
        places: the tasks' positions.
    """
    if not places:
        raise InvalidError("no-task", "tasks: expected at least one, given none")
    chosen = tuple(bank.tasks[place] for place in places)
    context_files.check_names(chosen)
    index = torch.tensor(places)
    return dataclasses.replace(
        bank,
        tensors={
            name: tensor if name.startswith(SHARED) else tensor.index_select(0, index)
            for name, tensor in bank.tensors.items()
            if not name.startswith(ACTIVITY)
        },
        tasks=chosen,
        specs={task.trial_id: bank.specs[task.trial_id] for task in chosen},
        mean_images=None if bank.mean_images is None else bank.mean_images.index_select(0, index),
    )


def renamed(
    bank: BankT,
    names: Mapping[int | str, str] | Callable[[str], str],
    classes: Mapping[int | str, Sequence[str]],
) -> BankT:
    """See `ContextBank.renamed`."""
    if callable(names):
        found = {place: names(task.name) for place, task in enumerate(bank.tasks)}
    else:
        found = {bank.place(task): name for task, name in names.items()}
    of_classes = {bank.place(task): tuple(given) for task, given in classes.items()}
    for place, given in of_classes.items():
        expected = len(bank.tasks[place].classes)
        if len(given) != expected:
            message = f"classes: expected {expected} names for {bank.tasks[place].name!r}, given {len(given)}"
            raise InvalidError("not-a-name-per-class", message)
    tasks = tuple(
        dataclasses.replace(task, name=found.get(place, task.name), classes=of_classes.get(place, task.classes))
        for place, task in enumerate(bank.tasks)
    )
    context_files.check_names(tasks)
    return dataclasses.replace(bank, tasks=tasks)


def merged(banks: Sequence[BankT]) -> BankT:
    """See `ContextBank.merge`; the card is the first bank's."""
    first = banks[0]
    for bank in banks:
        context_checks.check_mergeable(bank, first)
    tasks = tuple(task for bank in banks for task in bank.tasks)
    context_files.check_names(tasks)
    images = [bank.mean_images for bank in banks if bank.mean_images is not None]
    return dataclasses.replace(
        first,
        tensors={
            name: tensor
            if name.startswith(SHARED)
            else torch.cat([bank.tensors[name].to(tensor.dtype) for bank in banks])
            for name, tensor in first.tensors.items()
            if not name.startswith(ACTIVITY)
        },
        tasks=tasks,
        specs={trial_id: spec for bank in banks for trial_id, spec in bank.specs.items()},
        arrays=next((bank.arrays for bank in banks if bank.arrays), {}),
        mean_images=torch.cat(images) if len(images) == len(banks) else None,
    )
