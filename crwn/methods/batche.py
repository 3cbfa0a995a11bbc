"""BatchE, BatchEnsemble for continual learning: shared weights and a rank-one factor r_t s_t^T per task.

Source: Wen, Tran & Ba 2020, "BatchEnsemble", arXiv:2002.06715: y = ((x * s_t) W^T) * r_t in every layer. W is
initialised kaiming-normal, trained with the first task's r and s, at 1e-4, and then frozen; every later task learns its
own r and s. r and s are initialised to random signs. FC_H is d -> H -> H -> m with ReLU between, no biases; a ResNet-18
has batch normalisation without gain and shift, with separate running statistics per task.

Shapes: G tasks, B examples per task, d values per image, m classes; layers are [O outputs, I inputs].
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
from crwn.methods.protocol import (
    ContextStart,
    SharedWeights,
    Surroundings,
    Tensors,
    trained_from,
)
from crwn.methods.starts import ContextFrom
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
class BatchESpec:
    """BatchE's settings.

    Attributes:
        first_task_rate: the learning rate of the first task, which trains the shared weights.
        context_start: whether each task draws initial r and s of its own, or all start from the same.
        context_from: whether a task starts as drawn, or from the earlier task whose r and s fit it best (`starts.py`).

    Raises:
        ValueError: a field is wrong.
    """

    __pydantic_config__: ClassVar[Mapping[str, Any]] = READ_STRICTLY

    kind: str = kind_field("batche")
    first_task_rate: PositiveFloat = 1e-4
    context_start: ContextStart = later_field("own")
    context_from: ContextFrom = later_field("own")

    def __post_init__(self) -> None:
        check_fields(self)

    def training(self, scale: str) -> TrainingSpec:
        """The paper's settings from the second task on: RMSProp at 0.01, or Adam from 0.01 for a ResNet."""
        return paper_training(scale, fully_connected_rate=0.01, resnet_rate=0.01)

    def blueprint(self, scale: str, problem: ProblemShape, seed: int) -> Blueprint:
        """A network shared by all tasks, and r and s per task (FC256 on 784 pixels: 268,800/T + 1,818).

        Raises:
            ValueError: BatchE does not have this scale, or no earlier task's r and s could be taken.
        """
        network = parse_network(scale, problem)
        weights = num_weights(network)
        statistics = num_statistics(network)
        num_factors = sum(layer.shape[0] + layer.shape[1] for layer in network.layers.values())
        return Blueprint(
            params_per_task=weights / problem.num_tasks + num_factors,
            trained_per_task=num_factors,
            stored_per_task=num_factors + starts.num_kept(self.context_from),
            stored_memory=starts.remembered_numbers(self.context_from, num_factors + statistics, problem),
            stored_shared=weights,
            moves_shared="first segment",
            statistics_per_task=statistics,
            multiply_adds=frozen_multiply_adds(network),
            # Plus each layer's output before r
            activations=network.activations
            + linear_inputs(network)
            + sum(layer.output_size for layer in network.layers.values()),
            backbone=drawn_normal(network, seed, lambda layer: (2 / layer.fan_in) ** 0.5),
        )


class BatchE(starts.ContextMethod):
    """The learner: shared weights, and per task and layer r [O] and s [I]."""

    def __init__(self, spec: BatchESpec, surroundings: Surroundings) -> None:
        self._spec = spec
        self._surroundings = surroundings
        self._network = parse_network(surroundings.scale, surroundings.problem)
        self._weights = SharedWeights(surroundings)

    def start_shared(self) -> Tensors:
        """The drawn weights, trainable."""
        return trained_from(self._surroundings.backbone)

    def start(self, tasks: Sequence[int]) -> Tensors:
        """Random signs, drawn anew for each task or once for all."""
        spec, surroundings = self._spec, self._surroundings
        state = start_statistics(self._network, surroundings, tasks)
        for name, (num_outputs, num_inputs) in ((n, w.shape[:2]) for n, w in surroundings.backbone.items()):
            for factor, size in (("r", num_outputs), ("s", num_inputs)):
                signs = surroundings.draw_signs(tasks, f"{name}.{factor}", (size,), start=spec.context_start)
                state[f"{name}.{factor}"] = signs.requires_grad_()
        return state | starts.start_from(spec.context_from, surroundings, tasks)

    def rate(self, segment: int, rate: float) -> float:
        """The first task's own learning rate, or the given one from the second task on."""
        return self._spec.first_task_rate if segment == 0 else rate

    def logits(
        self, state: Tensors, images: torch.Tensor, *, training: bool = False, moved: Tensors | None = None
    ) -> torch.Tensor:
        """The class scores: the layers in order, each with the task's factors."""

        def conv_weight(name: str) -> torch.Tensor:
            factors_GOI = state[f"{name}.r"][:, :, None] * state[f"{name}.s"][:, None]
            return state[f"{name}.weight"] * factors_GOI[..., None, None]

        def layer(name: str) -> dense.DenseLayer:
            return dense.DenseLayer(
                weight=self._weights(name, state[f"{name}.weight"]),
                in_scale_GI=state[f"{name}.s"],
                out_scale_GO=state[f"{name}.r"],
            )

        pixels, norm = self._surroundings.normalised(images), normalise(state, training=training, moved=moved)
        linears = in_a_row(layer, self._surroundings.kernel)
        return self._network.forward(pixels, linears=linears, conv_weight=conv_weight, norm=norm)
