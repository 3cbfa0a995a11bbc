"""A segment being learned: its tensors, its optimiser, its learning curves, and what of it a resume point keeps.

Shapes: G lanes (tasks learned together).
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
"""Training steps between two points of a learning curve."""


@dataclass(slots=True, kw_only=True)
class Group:
    """All that changes while a segment is learned, but memory and what moves of the shared state.

    Attributes:
        segment: what is learned.
        num_steps: updates of it.
        trained: what the optimiser moves, in place: the lanes' own tensors, and shared weights where they are trained.
        own: the lanes' other tensors.
        moving: the names of those that were moved.
        optimizer: of `trained`.
        block_loss_G: sum of losses over the examples since the last point of the curve.
        block_correct_G: correct answers among them.
        block_examples: how many, of each lane.
        curves: of each lane.
        step: updates done.
        train_seconds: that learning took.
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
            segment: what is learned.
            num_steps: updates of it.
            own: the lanes' own tensors, of which those that require a gradient are trained.
            shared: the shared weights that are trained with it.
            training: the trial's.
            device: where tensors live.
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

    @property
    def curves_by_task(self) -> dict[int, tuple[CurvePoint, ...]]:
        """Lanes of several tasks have one curve together, which stands with the first of them."""
        return {lane[0]: tuple(curve) for lane, curve in zip(self.segment.lanes, self.curves, strict=True)}

    @torch.no_grad()
    def note(self, step: Step, labels_GB: torch.Tensor, *, rate: float) -> None:
        """Count an update that was made; where a block ends, add a point to the curves.

        Args:
            step: what the method made of the batch.
            labels_GB: the batch's.
            rate: that the segment is learned at, for the error.

        Raises:
            FloatingPointError: the loss is no longer a finite number.
        """
        batch_size = labels_GB.shape[1]
        self.step += 1
        self.block_loss_G.add_(step.loss_G, alpha=batch_size)
        self.block_correct_G += (step.logits_GBm.argmax(dim=2) == labels_GB).sum(dim=1)
        self.block_examples += batch_size
        if self.step % CURVE_EVERY == 0 or self.is_learned:
            self._close_block(rate)

    def _close_block(self, rate: float) -> None:
        """The only place where training waits for the device."""
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
        """Some of the lanes as a group of their own, where the whole was.

        Args:
            part: which lanes.
            segment: of them alone.
            fresh: the same lanes before their first update.
        """
        cut = SavedGroup(
            tasks=segment.tasks,
            step=self.step,
            block_examples=self.block_examples,
            train_seconds=self.train_seconds * len(segment.lanes) / len(self.segment.lanes),
            curves=self.curves[part],
            state={name: tensor[part] for name, tensor in self._changing.items()},
            # A count of steps is everybody's.
            optimizer={name: t[part] if t.dim() else t for name, t in self.optimizer.state.items()},
            block_loss=self.block_loss_G[part],
            block_correct=self.block_correct_G[part],
        )
        fresh.load(cut)
        fresh.begun = self.begun
        return fresh

    def saved(self) -> SavedGroup:
        """What a resume point keeps; constants are drawn again."""
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
        """Go on from what was kept; the segment and its beginning are the same.

        Raises:
            KeyError, RuntimeError: it is of another group.
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
