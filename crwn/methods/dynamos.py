"""Dynamos: agents gate a network's channels example by example, learn from rewards, and are replayed with the network.

Source: Varma, Arani & Zonooz 2023, "Dynamically Modular and Sparse General Continual Learning", arXiv:2301.00620;
settings and details as in github.com/NeurAI-Lab/DynamicContinualLearning (`models/dynamos.py`, `utils/best_args.py`)
for sequential MNIST and a buffer of 500. With the network of `gated.py`, over the batch

    L = mean of -log p(y|x) + w_r R + w_p P
    R = mean over examples and gated layers of -reward log p(gates), reward = -(keep_ratio - share kept)^2,
        times `wrong_factor` where x is classified wrongly
    P = (1 + distances within classes) / (1 + distances between classes), of policy logits of correctly classified x

and over one draw from the buffer, in a pass of its own,

    L += alpha mean of (z(x') - z')^2 + alpha_p mean of (policy logits(x') - stored ones)^2
         + beta (mean of -log p(y'|x') + w_r R') + w_p P'

where z' are the scores of x' in the update in which it was seen, before the weights changed. The first `warm_up`
updates train the network without gates and store nothing. The buffer is a reservoir of the examples that were
classified correctly when they were seen (`stores`).

Deviation: in the authors' code the reservoir counts rejected examples as seen, and while it fills, their slots stay
empty and are replayed as black images of class 0 with scores of 0. Here a rejected example is not offered;
`stores: authors` is their rule. Log-probabilities are computed from logits; theirs from rounded probabilities.

Shapes: B examples, R replayed, N gates, L gated layers, m classes; d values per image.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import annotated_types

from crwn.faults import Fault, InvalidError
from crwn.lazy import LazyModule
from crwn.methods.gated import GatedNetwork, Passed, agents_of, parse_gated
from crwn.methods.plain import plain_blueprint, plain_training
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
    from crwn.nn import gating, losses
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
        stores: which examples are stored: those classified `correct`ly, `all`, or as in the `authors`' code.
        alpha: weight of the squared distance to the stored scores.
        beta: weight of the cross-entropy and the policy loss of replayed examples.
        policy_alpha: weight of the squared distance to the stored policy logits.
        reward_weight: w_r, weight of the policy loss.
        prototype_weight: w_p, weight of the prototype loss.
        keep_ratio: the share of a layer's gates to keep.
        wrong_factor: factor of the reward of a wrongly classified example.
        temperature: of the keep-probability.
        warm_up: updates at the start of the trial without gates.

    Raises:
        ValueError: a field is wrong, or the buffer does not hold a batch.
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
        sizes = (self.buffer, self.replay_batch)
        if all(isinstance(size, int) for size in sizes) and 0 < self.buffer < self.replay_batch:
            message = f"buffer: expected at least the {self.replay_batch} of replay_batch, given {self.buffer}"
            faults.append(Fault("buffer-below-batch", message))
        if faults:
            raise InvalidError.of(faults)

    def training(self, scale: str) -> TrainingSpec:
        """The authors' settings for sequential MNIST: SGD at 0.07, one epoch in batches of 10."""
        del scale
        return plain_training(0.07)

    def blueprint(self, scale: str, problem: ProblemShape, seed: int) -> Blueprint:
        """The network, its agents, and the buffer with scores and policy logits."""
        agents = agents_of(parse_gated(scale, problem)).values()
        trained, gates = sum(agent.num_trained for agent in agents), sum(agent.gates for agent in agents)
        ungated = plain_blueprint(
            scale, problem, seed, biases=True, examples_kept=self.buffer, examples_replayed=self.replay_batch
        )
        return dataclasses.replace(
            ungated,
            params_per_task=ungated.params_per_task + trained,
            trained_per_task=ungated.trained_per_task + trained,
            stored_shared=ungated.stored_shared + trained + 2 * gates,
            stored_memory=self.buffer * (problem.num_classes + gates),
            multiply_adds=ungated.multiply_adds + 3 * sum(agent.products for agent in agents),
            activations=ungated.activations + sum(agent.activations for agent in agents),
        )


class Dynamos(Method):
    """The learner: a gated network with a replay buffer that also stores scores and policy logits."""

    def __init__(self, spec: DynamosSpec, surroundings: Surroundings) -> None:
        self._spec = spec
        self._surroundings = surroundings
        self._network = GatedNetwork(surroundings, temperature=spec.temperature)

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
        """Learn the batch and a draw, each in a pass of its own; then offer the batch to the buffer."""
        spec = self._spec
        if batch.update < spec.warm_up:
            return self._network.ungated.learn(state, batch)
        labels_B = batch.labels[0]
        moved: Tensors = {}
        uniforms_BN = batch.uniform("gates", len(labels_B), self._network.num_gates)
        passed = self._network.passed(state, batch.images[0], uniforms_BN, moved)
        weights_B = torch.full_like(passed.log_p_BL[:, 0].detach(), 1 / len(labels_B))
        loss = self._loss(passed, labels_B, weights_B)
        if batch.update > spec.warm_up:  # before, there is nothing to replay
            loss = loss + self._replayed(state, batch, moved)
        self._store(state, batch, passed)
        return Step(loss_G=loss[None], logits_GBm=passed.logits_Bm[None], moved=moved)

    def activity(self, state: Tensors, images: torch.Tensor) -> Tensors:
        """The gates, by the name of the gated convolution."""
        return self._network.gates(state, images)

    def _loss(
        self, passed: Passed, labels_B: torch.Tensor, weights_B: torch.Tensor, *, beta: float = 1.0
    ) -> torch.Tensor:
        """beta (cross-entropy + w_r R) + w_p P of examples with weights that sum to 1; 0 leaves one out."""
        spec = self._spec
        correct_B = passed.logits_Bm.argmax(dim=1) == labels_B
        rewards_BL = gating.rewards(
            passed.shares_BL, correct_B, keep_ratio=spec.keep_ratio, wrong_factor=spec.wrong_factor
        )
        entropies_B = losses.cross_entropies(passed.logits_Bm[None], labels_B[None])[0]
        loss = (entropies_B * weights_B).sum() + spec.reward_weight * gating.policy_loss(
            passed.log_p_BL, rewards_BL, weights_B
        )
        prototype = gating.prototype_loss(passed.policy_BN, labels_B, correct_B & (weights_B > 0))
        return beta * loss + spec.prototype_weight * prototype

    def _replayed(self, state: Tensors, batch: Batch, moved: Tensors) -> torch.Tensor:
        """The loss of a draw from the buffer, 0 if nothing is stored; running statistics go on from the batch's."""
        spec, network = self._spec, self._network
        drawn = replay.draw(state, spec.replay_batch, batch.uniform("replay", spec.buffer))
        images = batch.view(drawn.take(state, "images").view(-1, *batch.originals.shape[2:]), "replayed")
        uniforms_RN = batch.uniform("gates replayed", len(images), network.num_gates)
        then: Tensors = {}
        passed = network.passed({**state, **moved}, images, uniforms_RN, then)
        has_any = state[replay.SEEN] > 0
        moved |= {name: torch.where(has_any, tensor, moved[name]) for name, tensor in then.items()}
        weights_R = drawn.mean_weights(self._surroundings.dtype)
        loss = self._loss(passed, drawn.take(state, "labels"), weights_R, beta=spec.beta)
        for weight, outputs_Rk, field in (
            (spec.alpha, passed.logits_Bm, "logits"),
            (spec.policy_alpha, passed.policy_BN, "policy"),
        ):
            errors_Rk = outputs_Rk - drawn.take(state, field)
            loss = loss + weight * (errors_Rk.square().mean(dim=1) * weights_R).sum()
        return loss

    def _store(self, state: Tensors, batch: Batch, passed: Passed) -> None:
        """Offer the batch to the buffer by the storing rule."""
        labels_B, dtype = batch.labels[0], self._surroundings.dtype
        correct_B = passed.logits_Bm.detach().argmax(dim=1) == labels_B
        all_B = torch.ones_like(correct_B)
        seen = {
            "images": batch.originals[0],
            "labels": labels_B,
            "logits": passed.logits_Bm.to(dtype),
            "policy": passed.policy_BN.to(dtype),
        }
        replay.offer_those_(
            state,
            seen,
            batch.uniform("reservoir", len(labels_B)),
            counted_B=correct_B if self._spec.stores == "correct" else all_B,
            stored_B=all_B if self._spec.stores == "all" else correct_B,
        )
