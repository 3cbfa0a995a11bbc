"""Metaplasticity: every weight has a fixed flexibility, which sets how far it can move before it consolidates.

Source: Cho, Lee, Baek & Paik, "Neuromimetic metaplasticity for adaptive continual learning" (arXiv:2407.07133; Neural
Networks 190, 107762, 2025), as implemented by the authors (github.com/vsnnlab/Metaplasticity, `trainModel.m`). The
gradient of a weight w with flexibility f is multiplied by

    alpha = 1 - tanh^2(s (w - w_0) (1 - f) / f)

where w_0 is its initial value. alpha is computed when an item begins and stays fixed while the item is learned. So a
weight is plastic until it has moved by about f / ((1 - f) s), then it stays. f = 1 is exactly plain SGD; a weight with
f = 0 never moves. Flexibilities are drawn once: with `low` = `high`, all weights have the same one (the authors'
`conventional` is 1, `stable` is 0.3); otherwise they are independent and uniform between the two (their `hybrid`: 0 to
1), or have a density that rises or falls linearly between 0.5 and 1.5 (their supplement). Biases have no flexibility
and learn freely, as do the gains and shifts of batch normalisation.

The defaults are the authors' for streams of 10 items: s = 4e5, SGD at 1e-4, 5 epochs in batches of 1024; they adapt s
by hand to the length of the stream (2e5 for 30 items).

Deviations: by default, weights start as in all plain networks here, those of FC_H Glorot-uniform; theirs start
Glorot-normal (`initializeWeight.m`), as ours do with `initial: glorot-normal`. Theirs are the three dense layers of
AlexNet on its frozen convolutions. `every` is ours, for streams that do not tell when an item begins. alpha multiplies
the gradient, which with momentum or Adam is not the same as multiplying the step.

Shapes: G = 1 lane, B examples, m classes; weights are [O outputs, I inputs] or [O, I, k, k].
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import annotated_types

from crwn.faults import InvalidError
from crwn.lazy import LazyModule
from crwn.methods.networks import drawn_normal, glorot_std, parse_network
from crwn.methods.plain import PlainNetwork, plain_blueprint
from crwn.methods.protocol import Method, Step, Surroundings, Tensors, check_range
from crwn.spec import (
    READ_STRICTLY,
    SCENARIOS,
    Blueprint,
    Index,
    PositiveFloat,
    ProblemShape,
    TrainingSpec,
    check_fields,
    kind_field,
    later_field,
)

if TYPE_CHECKING:
    import torch

    from crwn.batches import Batch, Examples
    from crwn.nn import flexibility
else:
    flexibility = LazyModule("crwn.nn.flexibility")

Density = Literal["uniform", "rising", "falling"]
"""The density of flexibilities between their bounds: uniform, or linear, rising or falling between 0.5 and 1.5."""

Share = Annotated[float, annotated_types.Ge(0), annotated_types.Le(1)]


@dataclass(frozen=True, slots=True, kw_only=True)
class MetaplasticSpec:
    """Metaplasticity's settings.

    Attributes:
        low: the lowest flexibility.
        high: the highest flexibility; if it equals `low`, all weights have this one.
        density: how flexibilities are distributed between the two.
        steepness: s, the reciprocal of the distance that a weight with flexibility 1/2 moves before it consolidates.
        every: 0: alpha is computed when an item begins; otherwise, the number of updates between computations of alpha,
            for streams that do not tell when an item begins.
        biases: whether FC_H has biases.
        initial: `network`: weights start as in all plain methods; `glorot-normal`: from N(0, 2 / (inputs + outputs)).

    Raises:
        ValueError: a field is wrong, the bounds are inverted, or a density is given although all flexibilities are
            equal.
    """

    __pydantic_config__: ClassVar[Mapping[str, Any]] = READ_STRICTLY

    kind: str = kind_field("metaplastic")
    low: Share = 0.0
    high: Share = 1.0
    density: Density = "uniform"
    steepness: PositiveFloat = 4e5
    every: Index = 0
    biases: bool = True
    initial: Literal["network", "glorot-normal"] = later_field("network")

    def __post_init__(self) -> None:
        check_fields(self)
        check_range("low", self.low, "high", self.high)
        if self.low == self.high and self.density != "uniform":
            raise InvalidError(
                "density-of-one-value",
                f"density: expected `uniform` where low and high are both {self.low}, since all weights then have the "
                f"same flexibility, given {self.density!r}",
            )

    def training(self, scale: str) -> TrainingSpec:
        """The authors' settings: SGD at 1e-4, 5 epochs of batches of 1024."""
        del scale
        return TrainingSpec(learning_rate=1e-4, optimizer="sgd", batch_size=1024, epochs_per_task=5)

    def blueprint(self, scale: str, problem: ProblemShape, seed: int) -> Blueprint:
        """One network, and alpha of each weight.

        Initial weights are drawn again whenever alpha is computed, and so are flexibilities unless `every` is set.

        Raises:
            ValueError: (also) `every` is set although the scenario tells when an item begins.
        """
        if self.every and "ends" in SCENARIOS[problem.scenario]:
            raise InvalidError(
                "boundaries-told",
                f"every: expected 0 in the scenario {problem.scenario!r}, which tells when a task begins, so that "
                f"alpha is computed there, given {self.every}; it is for streams (scenario 'general')",
            )
        network = parse_network(scale, problem)  # refuses a user's own, whose weights it does not know
        needs = frozenset() if self.every else frozenset({"ends"})
        blueprint = plain_blueprint(scale, problem, seed, biases=self.biases, needs=needs)  # type: ignore[arg-type]
        if self.initial == "glorot-normal":
            blueprint = dataclasses.replace(blueprint, backbone=drawn_normal(network, seed, glorot_std))
        num_weights = sum(math.prod(array.shape) for array in blueprint.backbone.arrays)
        return dataclasses.replace(blueprint, stored_memory=num_weights * (2 if self.every else 1))


class Metaplastic(Method):
    """The learner: a plain network; memory holds each weight's alpha, and its flexibility if `every` is set."""

    def __init__(self, spec: MetaplasticSpec, surroundings: Surroundings) -> None:
        self._spec = spec
        self._surroundings = surroundings
        self._network = PlainNetwork(surroundings, biases=spec.biases)
        self._layers = surroundings.backbone  # their initial weights

    @property
    def learns_by_hand(self) -> bool:
        """Whether the network does."""
        return self._network.by_hand

    def start_shared(self) -> Tensors:
        """The network's initial state."""
        return self._network.start()

    def start_memory(self) -> Tensors:
        """The initial alpha."""
        held = {f"flexibility.{layer}": self._flexibility(layer) for layer in self._layers if self._spec.every}
        return held | self._plasticities(self._network.start())

    def logits(
        self, state: Tensors, images: torch.Tensor, *, training: bool = False, moved: Tensors | None = None
    ) -> torch.Tensor:
        """The network's class scores."""
        return self._network.logits(state, images, training=training, moved=moved)

    def begin(self, state: Tensors, examples: Examples, rate: float) -> Tensors:
        """alpha for the item that begins, unless `every` is set."""
        del examples, rate
        return {} if self._spec.every else self._plasticities(state)

    def learn(self, state: Tensors, batch: Batch) -> Step:
        """The network's step: the cross-entropy of the batch."""
        return self._network.learn(state, batch)

    def adjust(self, state: Tensors, batch: Batch, gradients: Tensors) -> tuple[Tensors, Tensors]:
        """The gradients, with those of weights times alpha; with `every`, alpha is computed again when it is due."""
        is_due = self._spec.every and batch.update % self._spec.every == 0
        computed = self._plasticities(state) if is_due else {}
        alphas = {name: computed.get(f"alpha.{name}", state.get(f"alpha.{name}")) for name in gradients}
        scaled = {name: gradients[name] * alpha for name, alpha in alphas.items() if alpha is not None}
        return gradients | scaled, computed

    def _plasticities(self, state: Tensors) -> Tensors:
        """alpha of each weight, by `alpha.<name>`."""
        found = {}
        for layer, initial in self._layers.items():
            name = f"{layer}.weight"
            moved = state[name].detach() - initial
            held = state.get(f"flexibility.{layer}")
            drawn = self._flexibility(layer) if held is None else held
            found[f"alpha.{name}"] = flexibility.plasticity(moved, drawn, self._spec.steepness)
        return found

    def _flexibility(self, layer: str) -> torch.Tensor:
        """A layer's flexibilities, drawn again: once per item, this is cheaper than storing them."""
        spec = self._spec
        unit = self._surroundings.draw([0], f"{layer}.flexibility", tuple(self._layers[layer].shape), 0, 1)[0]
        return spec.low + (spec.high - spec.low) * flexibility.quantile(unit, spec.density)
