"""The networks of a bank: the tensors that they require, and the learners that predict with them.

Shapes: T tasks of the bank, B images, C channels, H height, W width, m classes.
"""

from __future__ import annotations

import functools
import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from crwn import backbone, learner
from crwn.backbone import Backbone
from crwn.benchmarks.specs import AddsClasses
from crwn.evaluation import EVALUATION_BATCH, among
from crwn.faults import InvalidError
from crwn.methods.protocol import Method, Tensors
from crwn.nn.kernels import choose_kernel
from crwn.spec import SCENARIOS, Blueprint
from crwn.trial_spec import TrialSpec

LARGEST_BACKBONE = 2**29
"""The most bytes that loading a bank may require, unless more is allowed: its frozen weights, or a task's state. A file
of kilobytes can name a network of terabytes."""

SMALL_SHARE = 1 / 8
"""The largest size of a task's state, relative to the network's weights, at which images of several tasks are predicted
in one call, each with a copy of its task's state; above it, copies cost more than one call per task."""

ROWS_AT_ONCE = 4096
"""The number of images times tasks per call."""


Pictures: TypeAlias = "torch.Tensor | NDArray[np.uint8]"
"""Images as unsigned bytes: [B, C, H, W], [B, C H W], or [B, H, W] if there is one channel."""


def as_bytes(images: Pictures, shape: tuple[int, int, int]) -> torch.Tensor:
    """Images as a tensor on the CPU [B, C, H, W].

    Args:
        images: the images.
        shape: channels, height, width.

    Raises:
        ValueError: they are not unsigned bytes of this shape.
    """
    channels, height, width = shape
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


def tells_tasks(trial: TrialSpec) -> bool:
    """Whether a trial's method is told the task; otherwise one network predicts for all tasks."""
    return "tasks" in SCENARIOS[trial.benchmark.problem().scenario] and trial.blueprint().is_continual


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What a trial's method keeps: tensors without values.

    Attributes:
        own: those of one task, by name, with a task axis of length 1.
        shared: shared weights that learning changes.
        varies: whether each task has a state of its own, kept or drawn again.
    """

    own: Tensors
    shared: Tensors
    varies: bool


def kept_by(trial: TrialSpec) -> Kept:
    """What a trial's method keeps."""
    method, blueprint = learner.outline(trial), trial.blueprint()
    shared = {} if blueprint.moves_shared == "never" else method.needed_to_predict(method.start_shared())
    start = {name: tensor.detach() for name, tensor in method.start([0]).items()} if tells_tasks(trial) else {}
    return Kept(own=method.pack(start) if start else {}, shared=shared, varies=bool(start))


def machine_memory() -> int:
    """This machine's memory in bytes."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def check_size(trial: TrialSpec, largest: int) -> None:
    """Check that a trial's network is not larger than allowed, before any of it is built.

    Args:
        trial: the trial.
        largest: the most bytes.

    Raises:
        ValueError: it is larger.
    """
    blueprint = trial.blueprint()
    numbers = math.ceil(max(blueprint.params_per_task, blueprint.trained_per_task, blueprint.stored_shared))
    asked = max(blueprint.backbone.num_bytes, 4 * numbers)
    if asked > largest:
        raise InvalidError(
            "larger-than-allowed",
            f"backbone: expected a network of at most {largest:,} bytes, given {trial.method.kind} {trial.scale} with "
            f"{asked:,} bytes; if you trust the file, load it with largest={asked}",
        )


def draw(blueprint: Blueprint, fingerprint: str) -> Backbone:
    """Draw the frozen weights again.

    Raises:
        ValueError: they do not have this fingerprint.
    """
    drawn = backbone.draw(blueprint.backbone)
    if drawn.fingerprint != fingerprint:
        raise InvalidError(
            "other-backbone",
            f"backbone: expected the frozen weights with the fingerprint {fingerprint}, drew "
            f"{drawn.fingerprint}: this NumPy draws other numbers than the trial's; use the version that it had, or "
            "save the bank there with backbone=True",
        )
    return drawn


def network_key(trial: TrialSpec) -> str:
    """What a trial's learner is built from, except the number of tasks: trials with equal keys predict alike."""
    problem, spec = trial.benchmark.problem(), json.loads(trial.canonical_json())
    parts = [spec["method"], trial.scale, trial.seed, trial.training.dtype, problem.input_shape, problem.num_classes]
    return json.dumps([*parts, problem.scenario, repr(trial.benchmark.normalisation())], sort_keys=True)


class Network:
    """The learner of one trial, or of trials that predict alike, with what their tasks keep.

    Args:
        trial: one of the trials.
        drawn: the frozen weights.
        own: what tasks keep [T, ...].
        indices: the T tasks' numbers in their trials.
        shared: learned shared weights.
    """

    def __init__(
        self, trial: TrialSpec, drawn: Backbone, own: Tensors, indices: Sequence[int], shared: Tensors
    ) -> None:
        kernel = choose_kernel("cpu", learner.product_dtype(trial))
        self._method: Method = learner.build(trial, drawn, torch.device("cpu"), kernel)
        self._trial = trial
        self._own = own
        self._indices = indices
        self._shared = shared

    @functools.cached_property
    def answers_at_once(self) -> bool:
        """Whether one call predicts images of several tasks.

        It does if all layers are dense and frozen after the first task at the latest, and a task keeps few numbers.
        """
        blueprint = self._trial.blueprint()
        arrays = blueprint.backbone.arrays
        num_weights = sum(math.prod(array.shape) for array in arrays)
        return (
            blueprint.moves_shared != "always"
            and all(len(array.shape) == 2 for array in arrays)
            and blueprint.stored_per_task <= SMALL_SHARE * num_weights
            and not blueprint.tests_by_batch
        )

    def start(self) -> Tensors:
        """The initial values of what the tasks trained: [T, ...]."""
        started = self._method.start(self._indices)
        return {name: tensor.detach() for name, tensor in started.items() if tensor.requires_grad}

    @torch.no_grad()
    def one(self, place: int | None, bytes_BCHW: torch.Tensor) -> torch.Tensor:
        """Class scores [B, m] of one task's images.

        Args:
            place: the task's position in `own`; None if tasks are not told.
            bytes_BCHW: the images.
        """
        method, state, index = self._method, self._shared, None
        if place is not None:
            index = self._indices[place]
            own = {name: tensor[place : place + 1] for name, tensor in self._own.items()}
            state = state | method.unpack(own, [index])
        prepared = method.prepare(index, bytes_BCHW)
        batch_size = len(prepared) if self._trial.blueprint().tests_by_batch else EVALUATION_BATCH
        logits = [method.logits(state, batch[None])[0] for batch in prepared.split(max(1, batch_size))]
        logits_Bm = torch.cat(logits)
        if self._classes is not None:
            logits_Bm = among(logits_Bm[None], torch.tensor(self._classes))[0]
        return logits_Bm.to(torch.promote_types(logits_Bm.dtype, torch.float32))

    @torch.no_grad()
    def each(self, places_B: torch.Tensor, bytes_BCHW: torch.Tensor) -> torch.Tensor:
        """Class scores [B, m] of images of several tasks, given the position of each image's task in `own` [B]."""
        if not self.answers_at_once:
            return self._by_task(places_B, bytes_BCHW)
        prepared = self._prepared(places_B, bytes_BCHW)
        logits = []
        for places, images in zip(places_B.split(EVALUATION_BATCH), prepared.split(EVALUATION_BATCH), strict=True):
            state = self._shared | {name: tensor.index_select(0, places) for name, tensor in self._unpacked.items()}
            logits.append(self._method.logits(state, images[:, None])[:, 0])
        logits_Bm = torch.cat(logits)
        return logits_Bm.to(torch.promote_types(logits_Bm.dtype, torch.float32))

    @torch.no_grad()
    def all(self, places: Sequence[int], bytes_BCHW: torch.Tensor) -> torch.Tensor:
        """Class scores [T, B, m] of the same images under each of these tasks."""
        if not (self.answers_at_once and self._prepares_alike):
            return torch.stack([self.one(place, bytes_BCHW) for place in places])
        index = torch.tensor(places)
        state = self._shared | {name: tensor.index_select(0, index) for name, tensor in self._unpacked.items()}
        batch_size = max(1, ROWS_AT_ONCE // len(places))
        logits = [
            self._method.logits(state, batch[None].expand(len(places), *batch.shape))
            for batch in bytes_BCHW.split(batch_size)
        ]
        logits_TBm = torch.cat(logits, dim=1)
        return logits_TBm.to(torch.promote_types(logits_TBm.dtype, torch.float32))

    def _by_task(self, places_B: torch.Tensor, bytes_BCHW: torch.Tensor) -> torch.Tensor:
        """One call per task, for the images of each."""
        rows = [(places_B == place).nonzero().flatten() for place in places_B.unique().tolist()]
        parts = [self.one(int(places_B[found[0]]), bytes_BCHW[found]) for found in rows]
        order_B = torch.cat(rows)
        return torch.cat(parts)[order_B.argsort()]

    def _prepared(self, places_B: torch.Tensor, bytes_BCHW: torch.Tensor) -> torch.Tensor:
        """Prepared images [B, ...], each as prepared for its own task."""
        if self._prepares_alike:
            return bytes_BCHW
        rows = [(places_B == place).nonzero().flatten() for place in places_B.unique().tolist()]
        parts = [self._method.prepare(self._indices[int(places_B[found[0]])], bytes_BCHW[found]) for found in rows]
        return torch.cat(parts)[torch.cat(rows).argsort()]

    @property
    def _prepares_alike(self) -> bool:
        """Whether images are prepared in the same way for all tasks, because the method takes them as they are."""
        return type(self._method).prepare is Method.prepare

    @functools.cached_property
    def _unpacked(self) -> Tensors:
        """The state of all tasks [T, ...]."""
        return self._method.unpack(self._own, self._indices)

    @functools.cached_property
    def _classes(self) -> tuple[int, ...] | None:
        """The classes that were learned, if tasks add classes; None: all."""
        benchmark = self._trial.benchmark
        if not isinstance(benchmark, AddsClasses):
            return None
        return tuple(sorted({label for group in benchmark.classes(self._trial.seed) for label in group}))


class Networks:
    """The networks of a bank's tasks: one for all trials that predict alike.

    Args:
        origins: each task's trial and its number there.
        drawn: the frozen weights.
        own: what tasks keep [T, ...].
        shared: learned shared weights.
    """

    def __init__(
        self, origins: Sequence[tuple[TrialSpec, int]], drawn: Backbone, own: Tensors, shared: Tensors
    ) -> None:
        members: dict[str, list[int]] = {}
        for place, (trial, _) in enumerate(origins):
            members.setdefault(network_key(trial), []).append(place)
        self._networks: list[Network] = []
        self._homes = [(0, 0)] * len(origins)
        self._num_classes = origins[0][0].benchmark.problem().num_classes
        for number, places in enumerate(members.values()):
            for within, place in enumerate(places):
                self._homes[place] = (number, within)
            index = torch.tensor(places)
            mine = own if len(members) == 1 else {name: tensor.index_select(0, index) for name, tensor in own.items()}
            indices = [origins[place][1] for place in places]
            self._networks.append(Network(origins[places[0]][0], drawn, mine, indices, shared))

    def one(self, place: int | None, bytes_BCHW: torch.Tensor) -> torch.Tensor:
        """Class scores [B, m] of one task's images, given its position; None if tasks are not told."""
        if place is None:
            return self._networks[0].one(None, bytes_BCHW)
        number, within = self._homes[place]
        return self._networks[number].one(within, bytes_BCHW)

    def each(self, places_B: torch.Tensor, bytes_BCHW: torch.Tensor) -> torch.Tensor:
        """Class scores [B, m] of images of several tasks, given the position of each image's task [B]."""
        if len(self._networks) == 1 and len(places_B):
            return self._networks[0].each(places_B, bytes_BCHW)  # positions in the bank are those in its only network
        homes_B2 = torch.tensor(self._homes)[places_B]
        logits_Bm = torch.empty(len(places_B), self._num_classes)
        for number, network in enumerate(self._networks):
            rows = (homes_B2[:, 0] == number).nonzero().flatten()
            if len(rows):
                found = network.each(homes_B2[rows, 1], bytes_BCHW[rows])
                logits_Bm = logits_Bm.to(found.dtype)
                logits_Bm[rows] = found
        return logits_Bm

    def all(self, places: Sequence[int], bytes_BCHW: torch.Tensor) -> torch.Tensor:
        """Class scores [T, B, m] of the same images under each of these tasks."""
        parts: dict[int, torch.Tensor] = {}
        for number, network in enumerate(self._networks):
            mine = [place for place in dict.fromkeys(places) if self._homes[place][0] == number]
            if mine:
                found = network.all([self._homes[place][1] for place in mine], bytes_BCHW)
                parts |= dict(zip(mine, found, strict=True))
        if not places:
            return torch.empty(0, len(bytes_BCHW), self._num_classes)
        return torch.stack([parts[place] for place in places])

    def start_alike(self) -> bool:
        """Whether all tasks started from the same initial values."""
        started = [network.start() for network in self._networks]
        first = {name: tensor[:1] for name, tensor in started[0].items()}
        return all(bool((own[name] == first[name]).all()) for own in started for name in first)
