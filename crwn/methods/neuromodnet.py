"""NeuroModNet: a network of fixed random weights; each task modulates every layer.

Source: CRWN (Hong & Pavlic, "Learning to Modulate Random Weights", arXiv:2204.04297): weights W_t = a_t (R * c_t) in
every layer, no biases. FC_H is d -> H -> H -> m with ReLU between; a ResNet-18 has batch normalisation without gain
and shift, with separate running statistics per task. A convolution's context is [I, k, k].

Pretrained mode (an ablation of the paper): R, c and a are learned jointly on the first task, at 1e-4; then R is frozen,
and every later task learns a new c and a at 0.01.

Our choices, where the paper is silent: R ~ N(0, 2/fan_in), c ~ U(-1, 1) drawn anew for each task, a = 1.

Shapes: G tasks, B examples per task, d values per image, m classes; layers are [O outputs, I inputs], k kernel size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from crwn.lazy import LazyModule
from crwn.methods import starts
from crwn.methods.networks import (
    drawn_normal,
    frozen_multiply_adds,
    in_a_row,
    linear_inputs,
    normalise,
    num_statistics,
    num_weights,
    paper_training,
    parse_network,
    start_statistics,
)
from crwn.methods.protocol import ContextStart, SharedWeights, Surroundings, Tensors, check_range, trained_from
from crwn.methods.starts import ContextFrom, Modulation
from crwn.spec import (
    READ_STRICTLY,
    Blueprint,
    PositiveFloat,
    ProblemShape,
    TrainingSpec,
    check_fields,
    kind_field,
    later_field,
)

if TYPE_CHECKING:
    import torch

    from crwn.nn import dense
else:
    dense = LazyModule("crwn.nn.dense")


@dataclass(frozen=True, slots=True, kw_only=True)
class NeuroModNetSpec:
    """NeuroModNet's settings.

    Attributes:
        modulation: which parts of each layer are trained: the context (local), the strength (global), or both.
        context_low: lower bound of the uniform initial contexts.
        context_high: upper bound of the uniform initial contexts; equal bounds give a constant.
        initial_strength: every layer's initial strength for each task.
        weight_gain: R's variance is this divided by the layer's fan-in.
        pretrained: whether R is learned with the first task and then frozen.
        first_task_rate: the learning rate of the first task, if it trains R.
        context_start: whether each task draws initial contexts of its own, or all start from the same.
        context_from: whether a task starts as drawn, or from the earlier task whose context fits it best (`starts.py`).

    Raises:
        ValueError: a field is wrong.
    """

    __pydantic_config__: ClassVar[Mapping[str, Any]] = READ_STRICTLY

    kind: str = kind_field("neuromodnet")
    modulation: Modulation = "local+global"
    context_low: float = -1.0
    context_high: float = 1.0
    initial_strength: float = 1.0
    weight_gain: PositiveFloat = 2.0
    pretrained: bool = later_field(default=False)
    first_task_rate: PositiveFloat = later_field(1e-4)
    context_start: ContextStart = later_field("own")
    context_from: ContextFrom = later_field("own")

    def __post_init__(self) -> None:
        check_fields(self)
        check_range("context_low", self.context_low, "context_high", self.context_high)
        starts.check_shared(self.context_start, self.context_low, self.context_high)

    def training(self, scale: str) -> TrainingSpec:
        """The paper's settings: RMSProp at 0.01, or Adam from 0.1 for a ResNet."""
        return paper_training(scale, fully_connected_rate=0.01, resnet_rate=0.1)

    def blueprint(self, scale: str, problem: ProblemShape, seed: int) -> Blueprint:
        """A network whose trained parameters are its contexts and strengths (FC256 on 784 pixels: 1,299).

        If pretrained, R counts too, divided by the number of tasks (FC4096, 36 tasks: 565,352).

        Raises:
            ValueError: NeuroModNet does not have this scale, pretraining is asked for with a single task, or
                no earlier context could be taken.
        """
        network = parse_network(scale, problem)
        if self.pretrained and problem.num_tasks == 1:
            raise ValueError(
                "pretrained: expected a benchmark of at least 2 tasks, given 1; the first task only prepares the others"
            )
        layers, weights = network.layers.values(), num_weights(network)
        trained, kept = starts.modulated_counts(sum(layer.fan_in for layer in layers), len(layers), self.modulation)
        statistics = num_statistics(network)
        return Blueprint(
            params_per_task=trained + (weights / problem.num_tasks if self.pretrained else 0),
            stored_shared=weights if self.pretrained else 0,
            moves_shared="first segment" if self.pretrained else "never",
            trained_per_task=trained,
            stored_per_task=kept + starts.num_kept(self.context_from),
            stored_memory=starts.remembered_numbers(self.context_from, kept + statistics, problem),
            statistics_per_task=statistics,
            multiply_adds=frozen_multiply_adds(network),
            activations=network.activations + linear_inputs(network),
            backbone=drawn_normal(network, seed, lambda layer: (self.weight_gain / layer.fan_in) ** 0.5),
        )


class NeuroModNet(starts.ContextMethod):
    """The learner: per task and layer a context [I] or [I, k, k] and a strength."""

    def __init__(self, spec: NeuroModNetSpec, surroundings: Surroundings) -> None:
        self._spec = spec
        self._surroundings = surroundings
        self._network = parse_network(surroundings.scale, surroundings.problem)
        self._weights = SharedWeights(surroundings)

    def start_shared(self) -> Tensors:
        """R, if the first task trains it; else nothing."""
        return trained_from(self._surroundings.backbone) if self._spec.pretrained else {}

    def start(self, tasks: Sequence[int]) -> Tensors:
        """Contexts drawn anew for each task, and initial strengths."""
        spec, backbone = self._spec, self._surroundings.backbone
        modulated_GX = starts.start_modulated(
            self._surroundings,
            tasks,
            inputs={name: tuple(weight.shape[1:]) for name, weight in backbone.items()},
            modulation=spec.modulation,
            context_range=(spec.context_low, spec.context_high),
            initial_strength=spec.initial_strength,
            context_start=spec.context_start,
        )
        statistics_GX = start_statistics(self._network, self._surroundings, tasks)
        return modulated_GX | statistics_GX | starts.start_from(spec.context_from, self._surroundings, tasks)

    def rate(self, segment: int, rate: float) -> float:
        """The first task's own learning rate, if it trains R; else the given one."""
        return self._spec.first_task_rate if self._spec.pretrained and segment == 0 else rate

    def logits(
        self, state: Tensors, images: torch.Tensor, *, training: bool = False, moved: Tensors | None = None
    ) -> torch.Tensor:
        """The class scores: the layers in order, each modulated."""

        def weight(name: str) -> torch.Tensor:
            return state.get(f"{name}.weight", self._surroundings.backbone[name])

        def conv_weight(name: str) -> torch.Tensor:
            effective_GIkk = state[f"{name}.strength"][:, None, None, None] * state[f"{name}.context"]
            return weight(name) * effective_GIkk[:, None]

        def layer(name: str) -> dense.DenseLayer:
            return dense.DenseLayer(
                weight=self._weights(name, weight(name)),
                in_scale_GI=state[f"{name}.context"],
                strength_G=state[f"{name}.strength"],
            )

        pixels, norm = self._surroundings.normalised(images), normalise(state, training=training, moved=moved)
        linears = in_a_row(layer, self._surroundings.kernel)
        return self._network.forward(pixels, linears=linears, conv_weight=conv_weight, norm=norm)
