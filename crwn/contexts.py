"""The context bank: the tensors kept for every learned task, and predictions with them.

Shapes: T tasks, B images, C channels, H height, W width, m classes. The task axis comes first.
"""

from __future__ import annotations

import functools
import json
import operator
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from crwn import backbone, learner, tensorfile
from crwn.benchmarks.specs import AddsClasses
from crwn.evaluation import EVALUATION_BATCH, among
from crwn.faults import InvalidError
from crwn.methods.protocol import Method, Tensors
from crwn.nn.kernels import choose_kernel
from crwn.spec import SCENARIOS
from crwn.trial_spec import TrialSpec

CONTENT = "contexts"
FORMAT = 1

SHARED = "shared."
"""The prefix of the names of weights that tasks share."""

ACTIVITY = "activity."
"""The prefix of the names of units' activities by class."""

HOW_TO_KEEP_WEIGHTS = "with `keep_weights: true` in its sweep, or with crwn.run(..., keep_weights=True)"

Pictures: TypeAlias = "torch.Tensor | NDArray[np.uint8]"
"""Images as unsigned bytes: [B, C, H, W], [B, C H W], or [B, H, W] if there is one channel."""


class WeightsError(InvalidError):
    """A bank lacks the trained weights that its trial predicts with."""


@dataclass(frozen=True, kw_only=True)  # without slots, for what is built at the first prediction
class ContextBank:
    """The tensors kept for all tasks, and the trial and backbone that they belong to.

    Attributes:
        tensors: by name, such as `layer1.context` [T, I] and `layer1.strength` [T]; masks are packed bits. Weights are
            included only if the trial was asked to keep them; shared ones, such as `shared.layer1.weight` [O, I], have
            no task axis. Nor has the units' activity, `activity.<layer>` [c, ...]: means over the test images of
            each class at the trial's end.
        trial_id: the trial that learned them.
        spec: its resolved spec, as parsed JSON.
        fingerprint: the fingerprint of the backbone that they modulate.
    """

    tensors: Tensors
    trial_id: str
    spec: dict[str, Any]
    fingerprint: str

    @functools.cached_property
    def trial(self) -> TrialSpec:
        """The trial that learned them.

        Raises:
            ValueError: this crwn does not know the spec, or it is another trial's.
        """
        found = TrialSpec.from_values(self.spec)
        if found.trial_id != self.trial_id:
            message = f"contexts: expected the spec of the trial {self.trial_id}, given {found.trial_id}'s"
            raise InvalidError("another-trial", message)
        return found

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
        return self.trial.benchmark.problem().num_tasks

    @property
    def needs_task(self) -> bool:
        """Whether `predict` needs the task of the images; else one network answers for all tasks."""
        problem = self.trial.benchmark.problem()
        return "tasks" in SCENARIOS[problem.scenario] and self.trial.blueprint().is_continual

    def predict(self, images: Pictures, task: int | None = None) -> torch.Tensor:
        """The class scores of images of a task.

        The first call draws the frozen weights again, from the trial's spec. Nothing depends on earlier calls.

        Args:
            images: as the benchmark gives those of the task (rotated, permuted), as unsigned bytes, which the network
                normalises itself. Where a test of the method depends on its batch, so do these scores.
            task: their task, from 0; None where `needs_task` is false.

        Returns:
            [B, m] on the CPU; a label is the index of the highest score. Classes that were not learned have minus
            infinity.

        Raises:
            WeightsError: the trial did not keep its trained weights.
            ValueError: images or task are not as expected, the bank is damaged, or the frozen weights cannot be drawn
                as they were.
        """
        place, bytes_BCHW = self._place(task), self._bytes(images)
        method, state = self._learned
        with torch.no_grad():
            if place is not None:
                own = {name: tensor[place : place + 1] for name, tensor in self._own.items()}
                state = state | method.unpack(own, [place])
            prepared = method.prepare(place, bytes_BCHW)
            batch_size = len(prepared) if self.trial.blueprint().tests_by_batch else EVALUATION_BATCH
            logits = [method.logits(state, batch[None])[0] for batch in prepared.split(max(1, batch_size))]
            logits_Bm = torch.cat(logits)
            if self._classes is not None:
                logits_Bm = among(logits_Bm[None], torch.tensor(self._classes))[0]
        return logits_Bm.to(torch.promote_types(logits_Bm.dtype, torch.float32))

    def _place(self, task: int | None) -> int | None:
        """The task as an index."""
        if not self.needs_task:
            if task is not None:
                raise InvalidError(
                    "task-not-told",
                    f"task: expected none, given {task!r}: one network of {self.trial.method.kind} answers for all "
                    "tasks, and is not told which task an image is from",
                )
            return None
        last = self.num_tasks - 1
        try:
            place = operator.index(-1 if task is None or isinstance(task, bool) else task)
        except TypeError:
            place = -1
        if not 0 <= place <= last:
            message = f"task: expected the task of the images, from 0 to {last}, given {task!r}"
            raise InvalidError("unknown-task", message)
        return place

    def _bytes(self, images: Pictures) -> torch.Tensor:
        """The images as a tensor on the CPU [B, C, H, W]."""
        channels, height, width = shape = self.trial.benchmark.problem().input_shape
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
    def _own(self) -> Tensors:
        """The tensors with a task axis."""
        return {name: tensor for name, tensor in self.tensors.items() if not name.startswith((SHARED, ACTIVITY))}

    @functools.cached_property
    def _classes(self) -> tuple[int, ...] | None:
        """The classes that were learned, where tasks add classes; None: all."""
        benchmark = self.trial.benchmark
        if not isinstance(benchmark, AddsClasses):
            return None
        return tuple(sorted({label for group in benchmark.classes(self.trial.seed) for label in group}))

    @functools.cached_property
    def _learned(self) -> tuple[Method, Tensors]:
        """The method on its frozen weights, and the weights that tasks share, as learned."""
        blueprint = self.trial.blueprint()
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        if blueprint.backbone.num_bytes > memory:
            raise InvalidError(
                "larger-than-memory",
                f"backbone: expected weights that fit into this machine's {memory:,} bytes of memory, given "
                f"{self.trial.method.kind} {self.trial.scale} with {blueprint.backbone.num_bytes:,} bytes",
            )
        drawn = backbone.draw(blueprint.backbone)
        if drawn.fingerprint != self.fingerprint:
            raise InvalidError(
                "other-backbone",
                f"backbone: expected the frozen weights with the fingerprint {self.fingerprint}, drew "
                f"{drawn.fingerprint}: this NumPy draws other numbers than the trial's; use the version that it had",
            )
        kernel = choose_kernel("cpu", learner.product_dtype(self.trial))
        method = learner.build(self.trial, drawn, torch.device("cpu"), kernel)
        shared = {name.removeprefix(SHARED): tensor for name, tensor in self.tensors.items() if name.startswith(SHARED)}
        expected = {} if blueprint.moves_shared == "never" else method.needed_to_predict(method.start_shared())
        self._check(shared, {name: tuple(tensor.shape) for name, tensor in expected.items()})
        if self.needs_task:
            one = method.pack({name: tensor.detach() for name, tensor in method.start([0]).items()})
            own = {name: (self.num_tasks, *tensor.shape[1:]) for name, tensor in one.items()}
            self._check(self._own, own)
        return method, shared

    def _check(self, given: Tensors, expected: dict[str, tuple[int, ...]]) -> None:
        """Check that tensors are there, in the expected shapes."""
        if expected and not given:
            raise WeightsError(
                "weights-not-kept",
                f"{self.trial.method.kind} predicts with trained weights, and the trial {self.trial_id} kept none: run "
                f"it in a new store {HOW_TO_KEEP_WEIGHTS}",
            )
        shapes = {name: tuple(tensor.shape) for name, tensor in given.items()}
        for name in sorted(expected.keys() | shapes.keys()):
            if expected.get(name) != shapes.get(name):
                wanted, found = (list(sizes[name]) if name in sizes else "none" for sizes in (expected, shapes))
                raise InvalidError("tensors-do-not-fit", f"contexts: expected {name} {wanted}, given {found}")


def dump(
    kept: Sequence[Tensors], shared: Tensors, spec: TrialSpec, fingerprint: str, *, activity: Tensors | None = None
) -> bytes:
    """The contexts of all tasks as a safetensors file.

    Args:
        kept: one dictionary per task, each tensor with a task axis of length 1; empty to leave them out.
        shared: weights that all tasks share; empty to leave them out.
        spec: the trial's spec.
        fingerprint: the fingerprint of its backbone.
        activity: the units' activity by class.
    """
    stacked = {name: torch.cat([task[name].cpu() for task in kept]) for name in (kept[0] if kept else ())}
    stacked |= {f"{SHARED}{name}": tensor.cpu() for name, tensor in shared.items()}
    stacked |= {f"{ACTIVITY}{name}": tensor.cpu() for name, tensor in (activity or {}).items()}
    header = {
        "content": CONTENT,
        "format": FORMAT,
        "trial_id": spec.trial_id,
        "spec": json.loads(spec.canonical_json()),
        "fingerprint": fingerprint,
    }
    return tensorfile.dump(stacked, header)


def load(content: bytes) -> ContextBank:
    """Read what `dump` wrote.

    Raises:
        ValueError: it is not such a file, or its format is newer.
    """
    tensors, header = tensorfile.parse(content)
    if header.get("content") != CONTENT:
        raise InvalidError("not-contexts", f"expected a file of contexts, given one of {header.get('content')!r}")
    if header.get("format") != FORMAT:
        raise InvalidError(
            "newer-format", f"contexts: expected format {FORMAT}, given {header.get('format')!r}; use a newer crwn"
        )
    return ContextBank(
        tensors=tensors, trial_id=header["trial_id"], spec=header["spec"], fingerprint=header["fingerprint"]
    )
