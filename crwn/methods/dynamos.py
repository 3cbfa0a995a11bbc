"""Dynamos: agents, trained with rewards, gate a network's channels for each example; both learn with replay.

Source: Varma, Arani & Zonooz 2023, "Dynamically Modular and Sparse General Continual Learning", arXiv:2301.00620;
settings and details as in github.com/NeurAI-Lab/DynamicContinualLearning (`models/dynamos.py`, `utils/best_args.py`)
for sequential MNIST and a buffer of 500. The network is in `gated.py`, the losses are in `gated_losses.py`. An update
learns a batch and one draw from the buffer, each batch-normalised on its own. The buffer stores an example's scores and
policy logits as they were before the update in which it was seen. The first `warm_up` updates train the network
without gates and store nothing. The buffer is a reservoir of the examples that were classified correctly when they
were seen (`stores`).

Deviation: in the authors' code, the reservoir counts rejected examples as seen, and while it fills, their slots stay
empty and are replayed as black images of class 0 with scores of 0. Here, a rejected example is not offered to the
reservoir; `stores: authors` restores their rule.

Shapes: B examples, R replayed.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import annotated_types

from crwn.faults import Fault, InvalidError
from crwn.lazy import LazyModule
from crwn.methods.gated import GatedNetwork, Passed, gated_blueprint
from crwn.methods.gated_losses import GatedLosses
from crwn.methods.plain import plain_training
from crwn.methods.protocol import Method, Step, Surroundings, Tensors
from crwn.spec import (
    READ_STRICTLY,
    Blueprint,
    Count,
    Index,
    NotNegative,
    PositiveFloat,
    ProblemShape,
    TrainingSpec,
    check_fields,
    kind_field,
)

if TYPE_CHECKING:
    import torch

    from crwn import replay
    from crwn.batches import Batch
else:
    torch = LazyModule("torch")
    replay = LazyModule("crwn.replay")
    gating = LazyModule("crwn.nn.gating")
    losses = LazyModule("crwn.nn.losses")


@dataclass(frozen=True, slots=True, kw_only=True)
class DynamosSpec:
    """Dynamos's settings.

    Attributes:
        buffer: capacity of the replay buffer, in examples; at least `replay_batch`.
        replay_batch: examples replayed per update.
        stores: which examples are stored: `correct`, those classified correctly; `all`; `authors`, as in the authors'
            code.
        alpha: weight of the squared distance to the stored scores.
        beta: weight of the cross-entropy and the policy loss of replayed examples.
        policy_alpha: weight of the squared distance to the stored policy logits.
        reward_weight: w_r, weight of the policy loss.
        prototype_weight: w_p, weight of the prototype loss.
        keep_ratio: the target share of a layer's open gates.
        wrong_factor: factor on the reward of a misclassified example.
        temperature: of the keep-probability.
        warm_up: number of updates without gates at the start of the trial.

    Raises:
        ValueError: a field is wrong, or the buffer is smaller than a replayed batch.
    """

    __pydantic_config__: ClassVar[Mapping[str, Any]] = READ_STRICTLY

    kind: str = kind_field("dynamos")
    buffer: Count = 500
    replay_batch: Count = 10
    stores: Literal["correct", "all", "authors"] = "correct"
    alpha: NotNegative = 0.2
    beta: NotNegative = 2.0
    policy_alpha: NotNegative = 0.2
    reward_weight: NotNegative = 0.5
    prototype_weight: NotNegative = 0.3
    keep_ratio: Annotated[float, annotated_types.Gt(0), annotated_types.Lt(1)] = 0.7
    wrong_factor: NotNegative = 500.0
    temperature: PositiveFloat = 0.15
    warm_up: Index = 10

    def __post_init__(self) -> None:
        faults: list[InvalidError | Fault] = []
        try:
            check_fields(self)
        except InvalidError as error:
            faults.append(error)
        kept, replayed = self.buffer, self.replay_batch  # of any type, if the check found a fault
        if isinstance(kept, int) and isinstance(replayed, int) and 0 < kept < replayed:  # type: ignore[redundant-expr]
            message = f"buffer: expected at least the {replayed} of replay_batch, given {kept}"
            faults.append(Fault("buffer-below-batch", message))
        if faults:
            raise InvalidError.of(faults)

    def training(self, scale: str) -> TrainingSpec:
        """The authors' settings for sequential MNIST: SGD at 0.07, one epoch in batches of 10."""
        del scale
        return plain_training(0.07)

    def blueprint(self, scale: str, problem: ProblemShape, seed: int) -> Blueprint:
        """The network, its agents, and the buffer with scores and policy logits."""
        return gated_blueprint(scale, problem, seed, examples_kept=self.buffer, examples_replayed=self.replay_batch)


class Dynamos(Method):
    """The learner: a gated network with a replay buffer that also stores scores and policy logits."""

    def __init__(self, spec: DynamosSpec, surroundings: Surroundings) -> None:
        self._spec = spec
        self._surroundings = surroundings
        self._network = GatedNetwork(surroundings, temperature=spec.temperature)
        names = [field.name for field in dataclasses.fields(GatedLosses)]
        self._losses = GatedLosses(**{name: getattr(spec, name) for name in names})

    @property
    def shows_activity(self) -> bool:
        """True."""
        return True

    def start_shared(self) -> Tensors:
        """The network's initial state, agents included."""
        return self._network.start()

    def start_memory(self) -> Tensors:
        """An empty buffer."""
        surroundings, problem = self._surroundings, self._surroundings.problem
        fields = {"logits": (problem.num_classes,), "policy": (self._network.num_gates,)}
        return replay.empty(
            self._spec.buffer, problem.input_size, fields, device=surroundings.device, dtype=surroundings.dtype
        )

    def logits(
        self, state: Tensors, images: torch.Tensor, *, training: bool = False, moved: Tensors | None = None
    ) -> torch.Tensor:
        """The network's class scores, with gates by threshold."""
        return self._network.logits(state, images, training=training, moved=moved)

    def learn(self, state: Tensors, batch: Batch) -> Step:
        """Learn the batch and a draw from the buffer, each normalised on its own; offer the batch to the buffer."""
        spec = self._spec
        if batch.update < spec.warm_up:
            return self._network.ungated.learn(state, batch)
        network, labels_B = self._network, batch.labels[0]
        images, uniforms, drawn = [batch.images[0]], [batch.uniform("gates", len(labels_B), network.num_gates)], None
        if batch.update > spec.warm_up:  # before, there is nothing to replay
            drawn = replay.draw(state, spec.replay_batch, batch.uniform("replay", spec.buffer))
            stored = drawn.take(state, "images").view(-1, *batch.originals.shape[2:])
            images.append(batch.view(stored, "replayed"))
            uniforms.append(batch.uniform("gates replayed", len(stored), network.num_gates))
        moved: list[Tensors] = [{} for _ in images]
        passed, *again = network.passed(state, images, uniforms, moved)
        weights_B = torch.full_like(labels_B, 1 / len(labels_B), dtype=self._surroundings.dtype)
        loss = self._losses.learned(passed, labels_B, weights_B)
        if drawn is not None:
            loss = loss + self._losses.replayed(
                again[0],
                drawn.take(state, "labels"),
                drawn.mean_weights(self._surroundings.dtype),
                logits_Bm=drawn.take(state, "logits"),
                policy_BN=drawn.take(state, "policy"),
            )
            has_any = state[replay.SEEN] > 0  # else statistics stay as the batch moved them
            moved[0] = {name: torch.where(has_any, moved[1][name], tensor) for name, tensor in moved[0].items()}
        self._store(state, batch, passed)
        return Step(loss_G=loss[None], logits_GBm=passed.logits_Bm[None], moved=moved[0])

    def activity(self, state: Tensors, images: torch.Tensor) -> Tensors:
        """The gates, by the name of the convolution that they gate."""
        return self._network.gates(state, images)

    def _store(self, state: Tensors, batch: Batch, passed: Passed) -> None:
        """Offer the batch to the buffer by the storing rule."""
        labels_B, dtype, stores = batch.labels[0], self._surroundings.dtype, self._spec.stores
        correct_B = passed.logits_Bm.detach().argmax(dim=1) == labels_B
        all_B = torch.ones_like(correct_B)
        outputs = {"logits": passed.logits_Bm.to(dtype), "policy": passed.policy_BN.to(dtype)}
        replay.offer_those_(
            state,
            {"images": batch.originals[0], "labels": labels_B, **outputs},
            batch.uniform("reservoir", len(labels_B)),
            counted_B=correct_B if stores == "correct" else all_B,
            stored_B=all_B if stores == "all" else correct_B,
        )
