"""ER, experience replay: every batch is learned together with examples from a replay buffer.

Source: mammoth (github.com/aimagelab/mammoth, `models/er.py`; settings of `utils/best_args.py` for sequential MNIST and
a buffer of 500: learning rate 0.1, batches of 10, 10 replayed, one epoch). The buffer is a reservoir of all examples so
far; each batch is offered to it after it is learned. New and replayed examples form one batch with one mean:

    L = mean over batch and replay of -log p(y|x)

Shapes: G = 1 lane, B examples, R replayed, m classes; d values per image.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from crwn.lazy import LazyModule
from crwn.methods.plain import PlainNetwork, plain_blueprint, plain_training
from crwn.methods.protocol import Method, Step, Surroundings, Tensors
from crwn.spec import READ_STRICTLY, Blueprint, Count, Index, ProblemShape, TrainingSpec, check_fields, kind_field

if TYPE_CHECKING:
    import torch

    from crwn import replay
    from crwn.batches import Batch
    from crwn.nn import losses
else:
    torch = LazyModule("torch")
    replay = LazyModule("crwn.replay")
    losses = LazyModule("crwn.nn.losses")


@dataclass(frozen=True, slots=True, kw_only=True)
class ERSpec:
    """ER's settings.

    Attributes:
        buffer: capacity of the replay buffer, in examples; with 0, the method is fine-tuning.
        replay_batch: examples replayed per update.
        biases: whether FC_H has biases.

    Raises:
        ValueError: a field is wrong.
    """

    __pydantic_config__: ClassVar[Mapping[str, Any]] = READ_STRICTLY

    kind: str = kind_field("er")
    buffer: Index = 500
    replay_batch: Count = 10
    biases: bool = True

    def __post_init__(self) -> None:
        check_fields(self)

    def training(self, scale: str) -> TrainingSpec:
        """mammoth's settings for a buffer of 500: SGD at 0.1."""
        del scale
        return plain_training(0.1)

    def blueprint(self, scale: str, problem: ProblemShape, seed: int) -> Blueprint:
        """One network and the buffer."""
        return plain_blueprint(
            scale,
            problem,
            seed,
            biases=self.biases,
            examples_kept=self.buffer,
            examples_replayed=min(self.replay_batch, self.buffer),
        )


class ER(Method):
    """The learner: a plain network with a replay buffer."""

    def __init__(self, spec: ERSpec, surroundings: Surroundings) -> None:
        self._spec = spec
        self._surroundings = surroundings
        self._network = PlainNetwork(surroundings, biases=spec.biases)

    @property
    def learns_by_hand(self) -> bool:
        """If the network does."""
        return self._network.by_hand

    def start_shared(self) -> Tensors:
        """The network's initial state."""
        return self._network.start()

    def start_memory(self) -> Tensors:
        """An empty buffer."""
        surroundings = self._surroundings
        return replay.empty(self._spec.buffer, surroundings.problem.input_size, device=surroundings.device)

    def logits(
        self, state: Tensors, images: torch.Tensor, *, training: bool = False, moved: Tensors | None = None
    ) -> torch.Tensor:
        """The network's class scores."""
        return self._network.logits(state, images, training=training, moved=moved)

    def learn(self, state: Tensors, batch: Batch) -> Step:
        """Learn the batch together with a draw from the buffer; then offer the batch to the buffer."""
        learn = self._with_replayed if self._spec.buffer and batch.update else self._network.learn
        step = learn(state, batch)
        if self._spec.buffer:
            uniforms_B = batch.stream("reservoir").random(batch.labels.shape[1])
            seen = {"images": batch.originals[0], "labels": batch.labels[0]}
            replay.offer_(state, seen, uniforms_B, batch.seen)
        return step

    def _with_replayed(self, state: Tensors, batch: Batch) -> Step:
        drawn = replay.draw(state, self._spec.replay_batch, batch.uniform("replay", self._spec.buffer))
        labels_B = batch.labels[0]
        replayed = batch.view(drawn.take(state, "images").view(-1, *batch.originals.shape[2:]), "replayed")
        moved: Tensors = {}
        passed = self._network.passed(state, [torch.cat([batch.images, replayed[None]], dim=1)], moved)
        (logits_1Xm,) = passed.logits
        labels_1X = torch.cat([labels_B, drawn.take(state, "labels")])[None]
        weights_R = drawn.weights_R.to(self._surroundings.dtype)
        weights_1X = torch.cat([weights_R.new_ones(labels_B.shape), weights_R])[None]
        total = weights_1X.sum()
        losses_1X, slopes_1Xm = losses.with_slopes(logits_1Xm, labels_1X, weights_1X * total.reciprocal())
        loss_1 = (losses_1X * weights_1X).sum(dim=1) / total
        by_hand = passed.by_hand(loss_1, [slopes_1Xm])
        return Step(loss_G=loss_1, logits_GBm=logits_1Xm[:, : labels_B.shape[0]], moved=moved, by_hand=by_hand)
