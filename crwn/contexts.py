"""The context bank: what is kept of every learned task, asked by name, passed on as one small file.

    bank = ContextBank.load("bank.safetensors")
    bank.predict(images, task="rotated 7")          # or task=7, or one task for each image
    bank.select([0, 7]).save("two.safetensors", dtype="int8")

A bank holds tensors, and each task's origin: the trial that learned it, and its number there. Its tasks may come from
several trials of one backbone, of different people. The frozen weights are not in the file unless asked for: they are
drawn again from the trials' specs, and refused if their fingerprint differs. A file may be a stranger's: reading it
runs no code, and everything that it says is checked before anything is drawn.

Shapes: T tasks, B images, C channels, H height, W width, m classes, d values per image. The task axis comes first.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import json
import operator
import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from crwn import backbone, context_files
from crwn.backbone import Backbone
from crwn.benchmarks.specs import RegroupsClasses
from crwn.context_files import ACTIVITY, SHARED, BankTask, Content, Precision, dump
from crwn.context_networks import (
    LARGEST_BACKBONE,
    Network,
    check_size,
    draw,
    kept_by,
    network_key,
    tells_tasks,
    trial_from,
)
from crwn.faults import InvalidError
from crwn.methods.protocol import Tensors
from crwn.trial_spec import TrialSpec

__all__ = ["ACTIVITY", "SHARED", "BankTask", "ContextBank", "WeightsError", "dump", "load"]

HOW_TO_KEEP_WEIGHTS = "with `keep_weights: true` in its sweep, or with crwn.run(..., keep_weights=True)"

Pictures: TypeAlias = "torch.Tensor | NDArray[np.uint8]"
"""Images as unsigned bytes: [B, C, H, W], [B, C H W], or [B, H, W] if there is one channel."""

TaskName: TypeAlias = "int | str"
"""A task's place in the bank, from 0, or its name."""

NUM_NEAREST = 3
"""Number of tasks that an error names."""


class WeightsError(InvalidError):
    """A bank lacks the trained weights that its trial predicts with."""


@dataclass(frozen=True, kw_only=True)  # without slots, for what is built at the first prediction
class ContextBank:
    """The tensors kept for all tasks, and the trials and the backbone that they belong to.

    Attributes:
        tensors: by name, such as `layer1.context` [T, I] and `layer1.strength` [T]; masks are packed bits. Weights are
            included only if the trial was asked to keep them; shared ones, such as `shared.layer1.weight` [O, I], have
            no task axis. Nor has the units' activity, `activity.<layer>` [c, ...]: means over the test images of
            each class at the trial's end.
        tasks: the tasks in order, each with its name and origin.
        specs: the resolved specs of the trials that learned them, by trial id, as parsed JSON.
        fingerprint: the fingerprint of the backbone that they modulate.
        arrays: the backbone's arrays by name, if the bank carries them; else they are drawn when they are needed.
        mean_images: each task's mean training image as unsigned bytes [T, d]; None: not known.
        card: what the bank's author says of it.
    """

    tensors: Tensors
    tasks: tuple[BankTask, ...]
    specs: Mapping[str, dict[str, Any]]
    fingerprint: str
    arrays: Tensors = dataclasses.field(default_factory=dict)
    mean_images: torch.Tensor | None = None
    card: str = ""

    @classmethod
    def load(cls, file: bytes | str | Path, *, largest: int = LARGEST_BACKBONE) -> ContextBank:
        """Read a bank's file, or a trial's contexts.safetensors; see `load`."""
        return load(file, largest=largest)

    def __repr__(self) -> str:
        names = ", ".join(task.name for task in self.tasks[:NUM_NEAREST])
        more = ", ..." if len(self.tasks) > NUM_NEAREST else ""
        return f"<context bank of {len(self.tasks)} tasks: {names}{more}>"

    @functools.cached_property
    def trials(self) -> Mapping[str, TrialSpec]:
        """The trials that learned the tasks, by id.

        Raises:
            ValueError: this crwn does not know a spec, or it is another trial's.
        """
        return {trial_id: trial_from(spec, trial_id) for trial_id, spec in self.specs.items()}

    @property
    def trial_id(self) -> str:
        """The id of the only trial that learned the tasks.

        Raises:
            ValueError: there are several.
        """
        if len(self.specs) != 1:
            raise InvalidError(
                "several-trials",
                f"contexts: expected the tasks of one trial, given those of {len(self.specs)}; `bank.tasks` names each "
                "task's trial",
            )
        return next(iter(self.specs))

    @property
    def trial(self) -> TrialSpec:
        """The only trial that learned the tasks; raises as `trial_id` and `trials` do."""
        return self.trials[self.trial_id]

    @property
    def spec(self) -> dict[str, Any]:
        """The spec of the only trial that learned the tasks, as parsed JSON; raises as `trial_id` does."""
        return self.specs[self.trial_id]

    @property
    def activity(self) -> Tensors:
        """The units' activity by the layer's name, such as the share of a class's images that a gate lets pass: [c, N].

        Empty if the method shows none.
        """
        names = sorted(name for name in self.tensors if name.startswith(ACTIVITY))
        return {name.removeprefix(ACTIVITY): self.tensors[name] for name in names}

    @property
    def num_tasks(self) -> int:
        """T, the number of tasks."""
        return len(self.tasks)

    @property
    def needs_task(self) -> bool:
        """Whether `predict` needs the task of the images; else one network answers for all tasks."""
        return tells_tasks(self._any_trial)

    def predict(
        self, images: Pictures, task: TaskName | Sequence[TaskName] | NDArray[Any] | torch.Tensor | None = None
    ) -> torch.Tensor:
        """The class scores of images.

        The first call draws the frozen weights again, from the trials' specs. Nothing depends on earlier calls.

        Args:
            images: as the benchmark gives those of the task (rotated, permuted), as unsigned bytes, which the network
                normalises itself. Where a test of the method depends on its batch, so do these scores.
            task: their task, by its place or its name, or B of them, one for each image; None where `needs_task` is
                false. Scores of images of several tasks agree with those of one task within rtol = atol = 1e-5.

        Returns:
            [B, m] on the CPU; a label is the index of the highest score. Classes that were not learned have minus
            infinity.

        Raises:
            WeightsError: the trial did not keep its trained weights.
            ValueError: images or task are not as expected, the bank is damaged, or the frozen weights cannot be drawn
                as they were.
        """
        if not self.needs_task:
            if task is not None:
                raise InvalidError(
                    "task-not-told",
                    f"task: expected none, given {task!r}: one network of {self._any_trial.method.kind} answers for "
                    "all tasks, and is not told which task an image is from",
                )
            (network,), _ = self._networks
            return network.one(None, self._bytes(images))
        if task is None or isinstance(task, str) or np.ndim(task) == 0:
            place, bytes_BCHW = self.place(task), self._bytes(images)  # type: ignore[arg-type]  # not several
            number, within = self._networks[1][place]
            return self._networks[0][number].one(within, bytes_BCHW)
        given = task.tolist() if isinstance(task, np.ndarray | torch.Tensor) else list(task)  # type: ignore[arg-type]
        bytes_BCHW = self._bytes(images)
        if len(given) != len(bytes_BCHW):
            raise InvalidError(
                "not-a-task-per-image",
                f"task: expected one task, or one for each of the {len(bytes_BCHW)} images, given {len(given)}",
            )
        places = {each: self.place(each) for each in dict.fromkeys(given)}
        networks, homes = self._networks
        homes_B2 = torch.tensor([homes[places[each]] for each in given], dtype=torch.int64).view(-1, 2)
        logits_Bm = torch.empty(len(given), len(self.tasks[0].classes))
        for number, network in enumerate(networks):
            rows = (homes_B2[:, 0] == number).nonzero().flatten()
            if len(rows):
                found = network.each(homes_B2[rows, 1], bytes_BCHW[rows])
                logits_Bm = logits_Bm.to(found.dtype)
                logits_Bm[rows] = found
        return logits_Bm

    def predict_all(self, images: Pictures, tasks: Iterable[TaskName] | None = None) -> torch.Tensor:
        """The class scores of the same images under each task.

        Args:
            images: as for `predict`.
            tasks: only these, in this order; None: all.

        Returns:
            [T, B, m].

        Raises:
            ValueError: as for `predict`; or one network answers for all tasks.
        """
        self._refuse_one_network("predict_all")
        places = range(self.num_tasks) if tasks is None else [self.place(task) for task in tasks]
        bytes_BCHW = self._bytes(images)
        networks, homes = self._networks
        parts: dict[int, torch.Tensor] = {}
        for number, network in enumerate(networks):
            mine = [place for place in dict.fromkeys(places) if homes[place][0] == number]
            if mine:
                found = network.all([homes[place][1] for place in mine], bytes_BCHW)
                parts |= dict(zip(mine, found, strict=True))
        if not parts:
            return torch.empty(0, len(bytes_BCHW), len(self.tasks[0].classes))
        return torch.stack([parts[place] for place in places])

    def place(self, task: TaskName | None) -> int:
        """A task's place in the bank, given that or its name.

        Raises:
            ValueError: there is no such task.
        """
        if isinstance(task, str):
            if task in self._places:
                return self._places[task]
            close = difflib.get_close_matches(task[:100], self._places, n=NUM_NEAREST, cutoff=0)
            raise InvalidError(
                "unknown-task", f"task: expected the name of one, given {task[:100]!r}; the nearest are {close}"
            )
        last = self.num_tasks - 1
        try:
            place = operator.index(-1 if task is None or isinstance(task, bool | np.bool_) else task)
        except TypeError:
            place = -1
        if not 0 <= place <= last:
            message = f"task: expected the task of the images, by its name or from 0 to {last}, given {task!r}"
            raise InvalidError("unknown-task", message)
        return place

    def select(self, tasks: Iterable[TaskName]) -> ContextBank:
        """A bank of some of the tasks, in this order.

        Raises:
            ValueError: there is no such task, one is named twice or none at all; or one network answers for all tasks.
        """
        self._refuse_one_network("select")
        places = [self.place(task) for task in ([tasks] if isinstance(tasks, str | int) else tasks)]
        if not places:
            raise InvalidError("no-task", "tasks: expected at least one, given none")
        chosen = tuple(self.tasks[place] for place in places)
        context_files.check_names(chosen)
        index = torch.tensor(places)
        return dataclasses.replace(
            self,
            tensors={
                name: tensor if name.startswith(SHARED) else tensor.index_select(0, index)
                for name, tensor in self.tensors.items()
                if not name.startswith(ACTIVITY)
            },
            tasks=chosen,
            specs={task.trial_id: self.specs[task.trial_id] for task in chosen},
            mean_images=None if self.mean_images is None else self.mean_images.index_select(0, index),
        )

    def renamed(
        self,
        names: Mapping[TaskName, str] | Callable[[str], str],
        *,
        classes: Mapping[TaskName, Sequence[str]] | None = None,
    ) -> ContextBank:
        """The bank with other names.

        Args:
            names: new names by the task's place or name; or a function of each name.
            classes: new names of classes by task: m each.

        Raises:
            ValueError: there is no such task, two would have one name, or names are missing.
        """
        if callable(names):
            found = {place: names(task.name) for place, task in enumerate(self.tasks)}
        else:
            found = {self.place(task): name for task, name in names.items()}
        of_classes = {self.place(task): tuple(given) for task, given in (classes or {}).items()}
        for place, given in of_classes.items():
            expected = len(self.tasks[place].classes)
            if len(given) != expected:
                message = f"classes: expected {expected} names for {self.tasks[place].name!r}, given {len(given)}"
                raise InvalidError("not-a-name-per-class", message)
        tasks = tuple(
            dataclasses.replace(task, name=found.get(place, task.name), classes=of_classes.get(place, task.classes))
            for place, task in enumerate(self.tasks)
        )
        context_files.check_names(tasks)
        return dataclasses.replace(self, tasks=tasks)

    def merge(self, *others: ContextBank) -> ContextBank:
        """A bank of the tasks of this and other banks, in order; they may come from other machines or people.

        Mean images are kept if all banks have them. The card is this bank's.

        Raises:
            ValueError: the banks are of different frozen weights, methods, image sizes or shared weights; two tasks
                have one name; or one network answers for all tasks of a bank.
        """
        banks = [self, *others]
        for bank in banks:
            bank._refuse_one_network("merge")
            bank._networks_fit(self)
        tasks = tuple(task for bank in banks for task in bank.tasks)
        context_files.check_names(tasks)
        images = [bank.mean_images for bank in banks if bank.mean_images is not None]
        carrying = next((bank.arrays for bank in banks if bank.arrays), {})
        return dataclasses.replace(
            self,
            tensors={
                name: tensor
                if name.startswith(SHARED)
                else torch.cat([bank.tensors[name].to(tensor.dtype) for bank in banks])
                for name, tensor in self.tensors.items()
                if not name.startswith(ACTIVITY)
            },
            tasks=tasks,
            specs={trial_id: spec for bank in banks for trial_id, spec in bank.specs.items()},
            arrays=carrying,
            mean_images=torch.cat(images) if len(images) == len(banks) else None,
        )

    def add(self, bank: ContextBank, task: TaskName, *, name: str | None = None) -> ContextBank:
        """The bank with one more task, taken from another bank; raises as `merge` does.

        Args:
            bank: the other bank.
            task: its task.
            name: the task's name here; None: as it is there.
        """
        one = bank.select([task])
        return self.merge(one if name is None else one.renamed({0: name}))

    def described(self, card: str) -> ContextBank:
        """The bank with this card: what its author says of it."""
        if len(card) > context_files.LONGEST_CARD:
            message = f"card: expected at most {context_files.LONGEST_CARD:,} characters, given {len(card):,}"
            raise InvalidError("too-long", message)
        return dataclasses.replace(self, card=card)

    def save(
        self,
        file: str | Path,
        *,
        dtype: Precision = "float32",
        backbone: bool = False,
        mean_images: bool = False,
    ) -> int:
        """Write the bank as one file, atomically.

        Args:
            file: its path.
            dtype: how what was learned is stored: `float32`, as it was learned; `float16`; `int8`, with a scale for
                each row, a task's numbers in one layer for example. Masks stay bits.
            backbone: whether the frozen weights are included. Without them the file is small, and a reader draws them
                again, which needs a NumPy that draws the same numbers.
            mean_images: whether the tasks' mean images are included, which say something of the training data.

        Returns:
            Its size in bytes.

        Raises:
            ValueError: the dtype is none of these, or mean images are asked for that the bank does not have.
        """
        content, path = self.to_bytes(dtype=dtype, backbone=backbone, mean_images=mean_images), Path(file)
        beside = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            beside.write_bytes(content)
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)
        return len(content)

    def to_bytes(self, *, dtype: Precision = "float32", backbone: bool = False, mean_images: bool = False) -> bytes:
        """The content of the file that `save` writes."""
        if mean_images and self.mean_images is None:
            raise InvalidError(
                "no-mean-images", "mean_images: expected a bank with them, given one without; see `with_mean_images`"
            )
        arrays = self._drawn.arrays if backbone else {}
        content = Content(
            tensors=self.tensors,
            specs=dict(self.specs),
            fingerprint=self.fingerprint,
            tasks=self.tasks,
            arrays={name: torch.tensor(array) for name, array in arrays.items()},
            mean_images=self.mean_images if mean_images else None,
            card=self.card,
        )
        return context_files.dump_bank(content, self._any_trial.blueprint().backbone, dtype)

    def with_mean_images(self, mean_images: torch.Tensor | NDArray[np.uint8]) -> ContextBank:
        """The bank with each task's mean image, unsigned bytes [T, d]; they are saved on request only.

        Raises:
            ValueError: they are not of this shape.
        """
        given = torch.as_tensor(mean_images)
        _check_mean_images(given, self.num_tasks, self._any_trial)
        return dataclasses.replace(self, mean_images=given.cpu())

    def check(self, largest: int = LARGEST_BACKBONE) -> None:
        """Check that all belongs together, without drawing the frozen weights.

        Args:
            largest: most bytes of the network.

        Raises:
            ValueError: the trials' networks differ or are larger; tensors are missing, left over, of another shape or
                dtype, or not finite; a task is none of its trial.
        """
        first = self._any_trial
        for trial in self.trials.values():
            check_size(trial, largest)
            _check_alike(trial, first)
        for task in self.tasks:
            problem = self.trials[task.trial_id].benchmark.problem()
            if task.index >= problem.num_tasks:
                message = f"task {task.name!r}: expected one of the trial's {problem.num_tasks}, given {task.index}"
                raise InvalidError("not-the-trials-task", f"contexts: {message}")
            if len(task.classes) != problem.num_classes:
                message = f"expected {problem.num_classes} classes, given {len(task.classes)}"
                raise InvalidError("not-a-name-per-class", f"contexts: task {task.name!r}: {message}")
        if self.arrays:
            shapes = {array.name: array.shape for array in first.blueprint().backbone.arrays}
            _check_shapes("backbone", self.arrays, {name: (shape, torch.float32) for name, shape in shapes.items()})
        if self.mean_images is not None:
            _check_mean_images(self.mean_images, self.num_tasks, first)
        self._check_tensors()
        for name, tensor in (*self.tensors.items(), *self.arrays.items()):
            if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
                raise InvalidError("not-finite", f"contexts: expected finite numbers, given others in {name}")

    def _check_tensors(self) -> None:
        """Check names, shapes and dtypes of what is kept against what the method keeps; weights may be left out."""
        first = self._any_trial
        kept = kept_by(first)
        own = {name: ((self.num_tasks, *tensor.shape[1:]), tensor.dtype) for name, tensor in kept.own.items()}
        shared = {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in kept.shared.items()}
        if self._own or not first.blueprint().keeps_weights:
            _check_shapes("contexts", self._own, own)
        if self._shared:
            _check_shapes("shared weights", self._shared, shared)

    def _networks_fit(self, other: ContextBank) -> None:
        """Check that the two banks' tasks can be in one bank."""
        if self.fingerprint != other.fingerprint:
            raise InvalidError(
                "other-backbone",
                f"bank: expected one of the frozen weights with the fingerprint {other.fingerprint}, given "
                f"{self.fingerprint}; banks of one seed, method and scale have the same",
            )
        _check_alike(self._any_trial, other._any_trial)
        given, expected = (bank._shared for bank in (self, other))
        if given.keys() != expected.keys() or any(not torch.equal(given[name], expected[name]) for name in expected):
            raise InvalidError(
                "other-shared-weights",
                "bank: expected the same weights that tasks share, given others; such tasks come from one trial",
            )
        if self._own.keys() != other._own.keys():
            raise InvalidError("tensors-do-not-fit", "bank: expected one with the same tensors of each task")

    def _refuse_one_network(self, what: str) -> None:
        if not self.needs_task:
            raise InvalidError(
                "task-not-told",
                f"{what}: expected a bank of tasks, given one network of {self._any_trial.method.kind}, which answers "
                "for all tasks",
            )

    @property
    def _any_trial(self) -> TrialSpec:
        """One of the trials, in which all agree in what concerns them."""
        return next(iter(self.trials.values()))

    def _bytes(self, images: Pictures) -> torch.Tensor:
        """The images as a tensor on the CPU [B, C, H, W]."""
        channels, height, width = shape = self._any_trial.benchmark.problem().input_shape
        shapes = [shape, (channels * height * width,), *([(height, width)] if channels == 1 else [])]
        given = images if isinstance(images, torch.Tensor) else np.asarray(images)
        if given.dtype not in (torch.uint8, np.dtype(np.uint8)) or tuple(given.shape[1:]) not in shapes:
            expected = " or ".join(f"[B, {', '.join(map(str, each))}]" for each in shapes)
            raise InvalidError(
                "not-the-tasks-images",
                f"images: expected bytes from 0 to 255 (uint8), {expected}, given {given.dtype} {list(given.shape)}; "
                "the network normalises them itself",
            )
        tensor = given.cpu() if isinstance(given, torch.Tensor) else torch.tensor(given)
        return tensor.reshape(-1, *shape)

    @functools.cached_property
    def _places(self) -> Mapping[str, int]:
        """Each task's place by its name."""
        return {task.name: place for place, task in enumerate(self.tasks)}

    @functools.cached_property
    def _own(self) -> Tensors:
        """The tensors with a task axis."""
        return {name: tensor for name, tensor in self.tensors.items() if not name.startswith((SHARED, ACTIVITY))}

    @functools.cached_property
    def _shared(self) -> Tensors:
        """The learned shared weights, by the method's own names."""
        return {name.removeprefix(SHARED): tensor for name, tensor in self.tensors.items() if name.startswith(SHARED)}

    @functools.cached_property
    def _drawn(self) -> Backbone:
        """The frozen weights: those that the bank carries, or drawn anew."""
        if not self.arrays:
            return draw(self._any_trial.blueprint(), self.fingerprint)
        arrays = {name: tensor.numpy() for name, tensor in self.arrays.items()}
        found = backbone.fingerprint(arrays)
        if found != self.fingerprint:
            raise InvalidError(
                "other-backbone",
                f"backbone: expected the frozen weights with the fingerprint {self.fingerprint}, given {found} in the "
                "file itself",
            )
        return Backbone(arrays=arrays, fingerprint=found)

    @functools.cached_property
    def _networks(self) -> tuple[list[Network], list[tuple[int, int]]]:
        """The networks, one for all trials that answer alike, and each task's network and place in it."""
        self.check(largest=_memory())
        kept = kept_by(self._any_trial)
        for expected, given in ((kept.shared, self._shared), (kept.own, self._own)):
            if expected and not given:
                kind, trial_id = self._any_trial.method.kind, next(iter(self.specs))
                raise WeightsError(
                    "weights-not-kept",
                    f"{kind} predicts with trained weights, and the trial {trial_id} kept none: run it in a new store "
                    f"{HOW_TO_KEEP_WEIGHTS}",
                )
        members: dict[str, list[int]] = {}
        for place, task in enumerate(self.tasks):
            members.setdefault(network_key(self.trials[task.trial_id]), []).append(place)
        networks, homes = [], [(0, 0)] * self.num_tasks
        for number, places in enumerate(members.values()):
            for within, place in enumerate(places):
                homes[place] = (number, within)
            own, index = self._own, torch.tensor(places)
            if len(members) > 1:
                own = {name: tensor.index_select(0, index) for name, tensor in own.items()}
            trial, indices = self.trials[self.tasks[places[0]].trial_id], [self.tasks[place].index for place in places]
            networks.append(Network(trial, self._drawn, own, indices, self._shared))
        return networks, homes


def load(file: bytes | str | Path, *, largest: int = LARGEST_BACKBONE) -> ContextBank:
    """Read a bank that `ContextBank.save` wrote, or a trial's contexts.safetensors.

    Args:
        file: its content, or its path.
        largest: most bytes of the network that it may ask for.

    Raises:
        ValueError: it is no such file, its format is newer, or what it says does not fit together; see
            `ContextBank.check`.
        OSError: it cannot be read.
    """
    content = context_files.parse(file if isinstance(file, bytes) else Path(file).read_bytes())
    tasks = content.tasks
    if tasks is None:
        ((trial_id, spec),) = content.specs.items()
        tasks = _tasks_of(trial_from(spec, trial_id), content.starts)
    tensors = content.tensors
    if content.tasks is not None:  # it may have rounded them
        trial_id = tasks[0].trial_id
        dtype = getattr(torch, trial_from(content.specs[trial_id], trial_id).training.dtype)
        if dtype == torch.float64:
            tensors = {name: t.double() if t.is_floating_point() else t for name, t in tensors.items()}
    bank = ContextBank(
        tensors=tensors,
        tasks=tasks,
        specs=content.specs,
        fingerprint=content.fingerprint,
        arrays=content.arrays,
        mean_images=content.mean_images,
        card=content.card,
    )
    bank.check(largest)
    if content.recipe is not None and content.recipe != context_files.recipe_of(bank._any_trial.blueprint().backbone):
        raise InvalidError(
            "other-backbone", "backbone: expected the recipe that the trials' specs give, found another in the file"
        )
    return bank


def _tasks_of(trial: TrialSpec, starts: Collection[str]) -> tuple[BankTask, ...]:
    """The tasks of a trial, as they are named in a bank: by the benchmark and their number there."""
    problem, benchmark = trial.benchmark.problem(), trial.benchmark
    if starts and len(starts) != problem.num_tasks:
        message = f"contexts: expected how each of {problem.num_tasks} tasks started, given {len(starts)}"
        raise InvalidError("tensors-do-not-fit", message)
    behind = [tuple(range(problem.num_classes))] * problem.num_tasks
    if isinstance(benchmark, RegroupsClasses):
        behind = list(benchmark.classes_behind(trial.seed))
    return tuple(
        BankTask(
            name=f"{benchmark.kind} {index}",
            trial_id=trial.trial_id,
            index=index,
            start=start,
            classes=tuple(map(str, classes)),
        )
        for index, (classes, start) in enumerate(zip(behind, starts or ["own"] * problem.num_tasks, strict=True))
    )


def _check_alike(trial: TrialSpec, other: TrialSpec) -> None:
    """Check that tasks of two trials can be in one bank: of one method, one network, one kind of images."""

    def facts(each: TrialSpec) -> dict[str, Any]:
        problem, blueprint = each.benchmark.problem(), each.blueprint()
        return {
            "method": each.method.kind,
            "scale": each.scale,
            "dtype": each.training.dtype,
            "images": problem.input_shape,
            "classes": problem.num_classes,
            "normalisation": each.benchmark.normalisation(),
            "frozen weights": context_files.recipe_of(blueprint.backbone),
            "shared weights": blueprint.moves_shared,
            "tasks are told": tells_tasks(each),
        }

    if trial == other:
        return
    given, expected = facts(trial), facts(other)
    if different := [name for name in expected if given[name] != expected[name]]:
        name = different[0]
        shown = [json.dumps(each[name], default=str)[:200] for each in (expected, given)]
        raise InvalidError(
            "other-network",
            f"bank: expected trials of one network, given others: {name} is {shown[0]} in {other.trial_id} and "
            f"{shown[1]} in {trial.trial_id}",
        )


def _check_shapes(what: str, given: Tensors, expected: Mapping[str, tuple[tuple[int, ...], torch.dtype]]) -> None:
    """Check that tensors are there, in the expected shapes and dtypes."""
    found = {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in given.items()}
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            shown = [
                f"{list(sizes[name][0])} {str(sizes[name][1]).removeprefix('torch.')}" if name in sizes else "none"
                for sizes in (expected, found)
            ]
            raise InvalidError("tensors-do-not-fit", f"{what}: expected {name} {shown[0]}, given {shown[1]}")


def _check_mean_images(images: torch.Tensor, num_tasks: int, trial: TrialSpec) -> None:
    expected = (num_tasks, trial.benchmark.problem().input_size)
    if tuple(images.shape) != expected or images.dtype != torch.uint8:
        raise InvalidError(
            "tensors-do-not-fit",
            f"mean_images: expected bytes (uint8) {list(expected)}, given {images.dtype} {list(images.shape)}",
        )


def _memory() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
