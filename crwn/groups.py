"""A segment in progress: its tensors, its optimiser, its learning curves, and its part of a resume point.

Shapes: G lanes (tasks learned at once).
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field

import torch

from crwn.benchmarks.protocol import Segment
from crwn.evaluation import diverged
from crwn.events import CurvePoint
from crwn.methods.protocol import Step, Tensors
from crwn.optimizers import OPTIMIZERS, Optimizer
from crwn.resume import SavedGroup
from crwn.spec import TrainingSpec

CURVE_EVERY = 50
"""Number of updates between two points of a learning curve."""


@dataclass(slots=True, kw_only=True)
class Group:
    """Everything that changes while a segment is learned, except memory and moving shared tensors.

    Attributes:
        segment: the segment.
        num_steps: its number of updates.
        trained: tensors that the optimiser updates in place: the lanes' own, and shared weights if they are trained.
        own: the lanes' other tensors.
        moving: the names of those among `own` that have changed.
        optimizer: the optimiser of `trained`.
        block_loss_G: sum of losses over the examples since the last point of the curve.
        block_correct_G: number of correct predictions among them, except those not yet counted.
        uncounted: scores [G, B, m] and labels [G, B] of the latest updates, whose correct predictions are counted
            together.
        block_examples: number of these examples per lane.
        curves: the curve of each lane.
        step: number of updates done.
        train_seconds: training time so far.
        begun: whether the method's `begin` is done.
    """

    segment: Segment
    num_steps: int
    trained: Tensors
    own: Tensors
    optimizer: Optimizer
    block_loss_G: torch.Tensor
    block_correct_G: torch.Tensor
    curves: list[list[CurvePoint]]
    uncounted: list[tuple[torch.Tensor, torch.Tensor]] = field(default_factory=list)
    moving: set[str] = field(default_factory=set)
    step: int = 0
    block_examples: int = 0
    train_seconds: float = 0.0
    begun: bool = False

    @classmethod
    def start(
        cls,
        segment: Segment,
        num_steps: int,
        *,
        own: Tensors,
        shared: Tensors,
        training: TrainingSpec,
        device: torch.device,
    ) -> Group:
        """A segment before its first update.

        Args:
            segment: the segment.
            num_steps: its number of updates.
            own: the lanes' own tensors; those that require a gradient are trained.
            shared: the shared weights that the segment trains.
            training: the trial's training settings.
            device: the device of the tensors.
        """
        trained = {**shared, **{name: tensor for name, tensor in own.items() if tensor.requires_grad}}
        trained = {name: _copied(tensor).requires_grad_() for name, tensor in trained.items()}
        zeros_G = torch.zeros(len(segment.lanes), dtype=torch.float64, device=device)
        return cls(
            segment=segment,
            num_steps=num_steps,
            trained=trained,
            own={name: tensor for name, tensor in own.items() if not tensor.requires_grad},
            optimizer=OPTIMIZERS[training.optimizer](trained, training.weight_decay, training.momentum),
            block_loss_G=zeros_G,
            block_correct_G=zeros_G.clone(),
            curves=[[] for _ in segment.lanes],
        )

    @property
    def is_learned(self) -> bool:
        """Whether all updates are done."""
        return self.step == self.num_steps

    def note(self, step: Step, labels_GB: torch.Tensor, *, rate: float) -> None:
        """Count an update; at the end of a block, add a point to the curves.

        Args:
            step: what the method computed from the batch.
            labels_GB: the batch's labels.
            rate: the segment's learning rate, for the error.

        Raises:
            FloatingPointError: the loss is no longer finite.
        """
        batch_size = labels_GB.shape[1]
        self.step += 1
        self.block_loss_G.add_(step.loss_G, alpha=batch_size)
        self.uncounted.append((step.logits_GBm.detach(), labels_GB))
        self.block_examples += batch_size
        if self.step % CURVE_EVERY == 0 or self.is_learned:
            self._close_block(rate)

    def _count(self) -> None:
        """Count the correct predictions of the latest updates."""
        if self.uncounted:
            logits, labels = (torch.cat(parts, dim=1) for parts in zip(*self.uncounted, strict=True))
            self.block_correct_G += (logits.argmax(dim=2) == labels).sum(dim=1)
            self.uncounted.clear()

    def _close_block(self, rate: float) -> None:
        """Add a point to the curves and start a new block; the only place where training waits for the device."""
        self._count()
        losses = (self.block_loss_G / self.block_examples).tolist()
        accuracies = (self.block_correct_G / self.block_examples).tolist()
        now = time.time()
        for lane, curve, loss, accuracy in zip(self.segment.lanes, self.curves, losses, accuracies, strict=True):
            if not math.isfinite(loss):
                raise diverged(lane[0], f"training loss is {loss} after {self.step} updates", rate)
            curve.append(CurvePoint(step=self.step, loss=loss, accuracy=accuracy, time=now))
        self.block_loss_G.zero_()
        self.block_correct_G.zero_()
        self.block_examples = 0

    def part(self, part: slice, segment: Segment, fresh: Group) -> Group:
        """Some of the lanes as a separate group, with the state that they have now.

        Args:
            part: which lanes.
            segment: the segment of these lanes only.
            fresh: a group of the same lanes before its first update, which receives the state.
        """
        self._count()
        cut = SavedGroup(
            tasks=segment.tasks,
            step=self.step,
            block_examples=self.block_examples,
            train_seconds=self.train_seconds * len(segment.lanes) / len(self.segment.lanes),
            curves=self.curves[part],
            state={name: tensor[part] for name, tensor in self._changing.items()},
            # A step count is common to all lanes.
            optimizer={name: t[part] if t.dim() else t for name, t in self.optimizer.state.items()},
            block_loss=self.block_loss_G[part],
            block_correct=self.block_correct_G[part],
        )
        fresh.load(cut)
        fresh.begun = self.begun
        return fresh

    def saved(self) -> SavedGroup:
        """The group's part of a resume point; constants are not saved, but drawn again."""
        self._count()
        return SavedGroup(
            tasks=self.segment.tasks,
            step=self.step,
            block_examples=self.block_examples,
            train_seconds=self.train_seconds,
            curves=self.curves,
            state=self._changing,
            optimizer=self.optimizer.state,
            block_loss=self.block_loss_G,
            block_correct=self.block_correct_G,
        )

    @torch.no_grad()
    def load(self, saved: SavedGroup) -> None:
        """Restore a saved state of the same segment.

        Raises:
            KeyError, RuntimeError: the state belongs to another group.
        """
        for name, tensor in self.trained.items():
            tensor.copy_(saved.state[name])
        for name in saved.state.keys() - self.trained.keys():
            self.own[name] = saved.state[name].to(self.own[name].device)
            self.moving.add(name)
        for name, tensor in self.optimizer.state.items():
            tensor.copy_(saved.optimizer[name])
        self.block_loss_G.copy_(saved.block_loss)
        self.block_correct_G.copy_(saved.block_correct)
        self.curves = [list(curve) for curve in saved.curves]
        self.step, self.block_examples = saved.step, saved.block_examples
        self.train_seconds = saved.train_seconds
        self.begun = True

    @property
    def _changing(self) -> Tensors:
        return {name: self.own[name] for name in sorted(self.moving)} | self.trained


def _copied(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.detach().clone(memory_format=torch.contiguous_format)
