"""DER++, dark experience replay: the buffer replays examples with their labels and their scores at the time.

Source: Buzzega et al. 2020, "Dark Experience for General Continual Learning" (arXiv:2004.07211), equation 6; settings
of mammoth (github.com/aimagelab/mammoth, `models/derpp.py`, `utils/best_args.py`) for sequential MNIST and a buffer of
500: learning rate 0.03, batches of 10, 10 replayed, alpha 1, beta 0.5, one epoch. With two independent draws from the
buffer,

    L = mean of -log p(y|x) over the batch + alpha mean of (z(x') - z')^2 over the first draw and the classes
        + beta mean of -log p(y''|x'') over the second draw

where z' are the scores of x' in the update in which it was seen, before the weights changed. The buffer is a reservoir
of all examples so far; each batch is offered to it after it is learned.

Shapes: G = 1 lane, B examples, R replayed per draw, m classes; d values per image.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from crwn.lazy import LazyModule
from crwn.methods.plain import PlainNetwork, plain_blueprint, plain_training
from crwn.methods.protocol import Method, Step, Surroundings, Tensors
from crwn.spec import (
    READ_STRICTLY,
    Blueprint,
    Count,
    Index,
    NotNegative,
    ProblemShape,
    TrainingSpec,
    check_fields,
    kind_field,
)

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
class DERPPSpec:
    """DER++'s settings.

    Attributes:
        buffer: capacity of the replay buffer, in examples; with 0, the method is fine-tuning.
        replay_batch: examples in each of the two draws.
        alpha: weight of the squared distance to the stored scores; with 0, the term is not computed.
        beta: weight of the cross-entropy of replayed labels; with 0, the term is not computed.
        biases: whether FC_H has biases.

    Raises:
        ValueError: a field is wrong.
    """

    __pydantic_config__: ClassVar[Mapping[str, Any]] = READ_STRICTLY

    kind: str = kind_field("derpp")
    buffer: Index = 500
    replay_batch: Count = 10
    alpha: NotNegative = 1.0
    beta: NotNegative = 0.5
    biases: bool = True

    def __post_init__(self) -> None:
        check_fields(self)

    def training(self, scale: str) -> TrainingSpec:
        """mammoth's settings for a buffer of 500: SGD at 0.03."""
        del scale
        return plain_training(0.03)

    def blueprint(self, scale: str, problem: ProblemShape, seed: int) -> Blueprint:
        """One network and the buffer, with scores and a label for each image."""
        draws = (self.alpha > 0) + (self.beta > 0)
        blueprint = plain_blueprint(
            scale,
            problem,
            seed,
            biases=self.biases,
            examples_kept=self.buffer,
            examples_replayed=draws * min(self.replay_batch, self.buffer),
        )
        return dataclasses.replace(blueprint, stored_memory=self.buffer * problem.num_classes)  # scores


class DERPP(Method):
    """The learner: a plain network with a replay buffer that also stores scores."""

    def __init__(self, spec: DERPPSpec, surroundings: Surroundings) -> None:
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
        surroundings, problem = self._surroundings, self._surroundings.problem
        scores = {"logits": (problem.num_classes,)}
        return replay.empty(
            self._spec.buffer, problem.input_size, scores, device=surroundings.device, dtype=surroundings.dtype
        )

    def logits(
        self, state: Tensors, images: torch.Tensor, *, training: bool = False, moved: Tensors | None = None
    ) -> torch.Tensor:
        """The network's class scores."""
        return self._network.logits(state, images, training=training, moved=moved)

    def learn(self, state: Tensors, batch: Batch) -> Step:
        """Learn the batch and two draws, each normalised separately; then offer the batch to the buffer."""
        spec = self._spec
        if spec.buffer == 0:
            return self._network.learn(state, batch)
        originals_B, labels_1B = batch.originals[0], batch.labels
        draws, batches = {}, [batch.images]
        for name, weight in (("scores", spec.alpha), ("labels", spec.beta)):
            if weight and batch.update:  # before the first update, there is nothing to replay
                draws[name] = drawn = replay.draw(state, spec.replay_batch, batch.uniform(name, spec.buffer))
                images = drawn.take(state, "images").view(-1, *originals_B.shape[1:])
                batches.append(batch.view(images, f"{name} replayed")[None])
        moved: Tensors = {}
        passed = self._network.passed(state, batches, moved)
        logits_1Bm, *replayed = passed.logits
        loss_1, slopes_1Bm = losses.mean_with_slopes(logits_1Bm, labels_1B)
        slopes = [slopes_1Bm]
        for (name, drawn), logits_1Rm in zip(draws.items(), replayed, strict=True):
            if name == "scores":
                errors_1Rm = logits_1Rm - drawn.take(state, "logits")
                loss_1 = loss_1 + spec.alpha * drawn.mean(errors_1Rm.square().mean(dim=2))
                weights_R = drawn.mean_weights(errors_1Rm.dtype, spec.alpha) / errors_1Rm.shape[2]
                slopes.append((weights_R[:, None] * (2 * errors_1Rm.detach())).to(logits_1Rm.dtype))
            else:
                labels_1R = drawn.take(state, "labels")[None]
                weights_R = drawn.mean_weights(self._surroundings.dtype, spec.beta)
                losses_1R, slopes_1Rm = losses.with_slopes(logits_1Rm, labels_1R, weights_R[None])
                loss_1 = loss_1 + spec.beta * drawn.mean(losses_1R)
                slopes.append(slopes_1Rm)
        by_hand = passed.by_hand(loss_1, slopes)
        seen = {"images": originals_B, "labels": labels_1B[0], "logits": logits_1Bm[0].to(self._surroundings.dtype)}
        replay.offer_(state, seen, batch.stream("reservoir").random(labels_1B.shape[1]), batch.seen)
        return Step(loss_G=loss_1, logits_GBm=logits_1Bm, moved=moved, by_hand=by_hand)
