"""A-GEM, averaged gradient episodic memory: no step may raise the loss on examples kept from earlier tasks.

Source: Chaudhry et al. 2019, "Efficient Lifelong Learning with A-GEM" (arXiv:1812.00420), equation 11; settings of
mammoth (github.com/aimagelab/mammoth, `models/agem.py`, `utils/best_args.py`) for sequential MNIST: learning rate
0.1, batches of 10, 128 replayed, one epoch. With the gradient g of the batch and the gradient r of a draw from the
buffer,

    g <- g - min(0, g . r) / (r . r) r

The buffer holds the same number of examples per task, buffer / T, drawn from each task when it ends. (mammoth keeps one
batch per task, whatever the buffer's size.) The draw does not update running statistics.

Shapes: G = 1 lane, B examples, R replayed, m classes; n examples kept per task.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from crwn.lazy import LazyModule
from crwn.methods.plain import PlainNetwork, plain_blueprint, plain_training
from crwn.methods.protocol import Method, Step, Surroundings, Tensors
from crwn.spec import READ_STRICTLY, Blueprint, Count, ProblemShape, TrainingSpec, check_fields, kind_field

if TYPE_CHECKING:
    import torch

    from crwn import replay
    from crwn.batches import Batch, Examples
    from crwn.nn import losses
else:
    torch = LazyModule("torch")
    replay = LazyModule("crwn.replay")
    losses = LazyModule("crwn.nn.losses")


@dataclass(frozen=True, slots=True, kw_only=True)
class AGEMSpec:
    """A-GEM's settings.

    Attributes:
        buffer: capacity of the replay buffer, in examples of all tasks; at least one per task.
        replay_batch: examples per update for the reference gradient.
        biases: whether FC_H has biases.

    Raises:
        ValueError: a field is wrong.
    """

    __pydantic_config__: ClassVar[Mapping[str, Any]] = READ_STRICTLY

    kind: str = kind_field("agem")
    buffer: Count = 500
    replay_batch: Count = 128
    biases: bool = True

    def __post_init__(self) -> None:
        check_fields(self)

    def training(self, scale: str) -> TrainingSpec:
        """mammoth's settings: SGD at 0.1."""
        del scale
        return plain_training(0.1)

    def blueprint(self, scale: str, problem: ProblemShape, seed: int) -> Blueprint:
        """One network and the buffer.

        Raises:
            ValueError: the buffer cannot hold one example per task.
        """
        kept = kept_of_task(self.buffer, problem.num_segments) * problem.num_segments
        return plain_blueprint(
            scale,
            problem,
            seed,
            biases=self.biases,
            needs=frozenset({"ends"}),
            examples_kept=kept,
            examples_replayed=min(self.replay_batch, kept),
        )


def kept_of_task(buffer: int, num_tasks: int) -> int:
    """Number of examples kept per task.

    Raises:
        ValueError: there would be none.
    """
    if buffer < num_tasks:
        raise ValueError(f"buffer: expected at least one example for each of {num_tasks} tasks, given {buffer}")
    return buffer // num_tasks


def projected(gradients: Tensors, reference: Tensors) -> Tensors:
    """Gradients projected so that they do not raise the reference loss, equation 11, over all tensors together.

    Args:
        gradients: the batch's gradients by name.
        reference: the gradients of the buffer's examples by the same names; zeros if there are none.
    """
    product = torch.stack([(gradients[name] * slope).sum() for name, slope in reference.items()]).sum()
    square = torch.stack([slope.square().sum() for slope in reference.values()]).sum()
    factor = torch.where(product < 0, product / square, 0.0)
    return {**gradients, **{name: gradients[name] - factor * slope for name, slope in reference.items()}}


class AGEM(Method):
    """The learner: a plain network with a replay buffer."""

    def __init__(self, spec: AGEMSpec, surroundings: Surroundings) -> None:
        self._spec = spec
        self._surroundings = surroundings
        self._network = PlainNetwork(surroundings, biases=spec.biases)
        self._num_segments = surroundings.problem.num_segments
        self._kept_of_task = kept_of_task(spec.buffer, self._num_segments)

    @property
    def learns_by_hand(self) -> bool:
        """If the network does."""
        return self._network.by_hand

    def start_shared(self) -> Tensors:
        """The network's initial state."""
        return self._network.start()

    def start_memory(self) -> Tensors:
        """An empty buffer."""
        surroundings, capacity = self._surroundings, self._kept_of_task * self._num_segments
        return replay.empty(capacity, surroundings.problem.input_size, device=surroundings.device)

    def logits(
        self, state: Tensors, images: torch.Tensor, *, training: bool = False, moved: Tensors | None = None
    ) -> torch.Tensor:
        """The network's class scores."""
        return self._network.logits(state, images, training=training, moved=moved)

    def learn(self, state: Tensors, batch: Batch) -> Step:
        """The network's step: the cross-entropy of the batch."""
        return self._network.learn(state, batch)

    def adjust(self, state: Tensors, batch: Batch, gradients: Tensors) -> tuple[Tensors, Tensors]:
        """Project the gradients, from the second task on."""
        if batch.segment == 0:
            return gradients, {}
        keys_K = batch.uniform("replay", self._kept_of_task * self._num_segments)
        drawn = replay.draw(state, self._spec.replay_batch, keys_K)
        images = drawn.take(state, "images").view(-1, *batch.originals.shape[2:])
        replayed = batch.view(images, "replayed")
        with torch.set_grad_enabled(not self._network.by_hand):
            passed = self._network.passed(state, [replayed[None]], {})
            (logits_1Rm,), labels_1R = passed.logits, drawn.take(state, "labels")[None]
            weights_1R = drawn.mean_weights(self._surroundings.dtype)[None]
            losses_1R, slopes_1Rm = losses.with_slopes(logits_1Rm, labels_1R, weights_1R)
            loss_1 = drawn.mean(losses_1R)
            made = Step(loss_G=loss_1, logits_GBm=logits_1Rm, by_hand=passed.by_hand(loss_1, [slopes_1Rm]))
            reference = made.gradients({name: state[name] for name in gradients})
        return projected(gradients, reference), {}

    def end(self, state: Tensors, examples: Examples) -> Tensors:
        """The buffer with examples of the task, drawn without replacement: the same number per task, or all it has."""
        num_kept = min(self._kept_of_task, examples.num_examples)
        chosen_n = examples.stream("buffer").choice(examples.num_examples, num_kept, replace=False)
        kept = examples.take(torch.from_numpy(chosen_n).to(self._surroundings.device))
        return replay.put(state, {"images": kept.images, "labels": kept.labels})
