"""BatchE, BatchEnsemble used for continual learning: shared weights, and a rank-one factor r_t s_t^T for each task.

Source: Wen, Tran & Ba 2020, "BatchEnsemble", arXiv:2002.06715: y = ((x * s_t) W^T) * r_t in every layer. W starts
kaiming-normal, is learned with the first task's r and s, at 1e-4, and then frozen; every later task learns an r and an
s of its own. r and s start as random signs. FC_H is d -> H -> H -> m with ReLU between, no biases.

Shapes: G tasks, B examples a task, d numbers an image, m classes; layers are [O outputs, I inputs].
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from crwn.lazy import LazyModule
from crwn.methods.protocol import (
    FULLY_CONNECTED,
    Method,
    SharedWeights,
    Surroundings,
    Tensors,
    fully_connected,
    fully_connected_backbone,
    fully_connected_layers,
    parse_scale,
)
from crwn.spec import READ_STRICTLY, Blueprint, PositiveFloat, ProblemShape, TrainingSpec, check_fields, kind_field

if TYPE_CHECKING:
    import torch

    from crwn.nn import dense
else:
    dense = LazyModule("crwn.nn.dense")


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchESpec:
    """BatchE's settings.

    Attributes:
        first_task_rate: the learning rate of the first task, with which the shared weights are learned.

    Raises:
        ValueError: a field is wrong.
    """

    __pydantic_config__: ClassVar[Mapping[str, Any]] = READ_STRICTLY

    kind: str = kind_field("batche")
    first_task_rate: PositiveFloat = 1e-4

    def __post_init__(self) -> None:
        check_fields(self)

    def training(self) -> TrainingSpec:
        """The paper's: RMSProp at 0.01 from the second task on."""
        return TrainingSpec(learning_rate=0.01)

    def blueprint(self, scale: str, problem: ProblemShape, seed: int) -> Blueprint:
        """FC_H shared by all tasks, and r and s (FC256 on 784 pixels: 268,800/T + 1,818)."""
        hidden = parse_scale(scale, FULLY_CONNECTED)
        layers = fully_connected_layers(problem, hidden)
        num_weights = sum(o * i for o, i in layers.values())
        num_factors = sum(o + i for o, i in layers.values())
        return Blueprint(
            grouping="any",
            params_per_task=num_weights / problem.num_tasks + num_factors,
            trained_per_task=num_factors,
            stored_per_task=num_factors,
            stored_shared=num_weights,
            shared_training="first task",
            first_task_rate=self.first_task_rate,
            multiply_adds=2 * num_weights,  # forward, and the gradient to each layer's input, which s needs
            # Of each layer the input, that times s, and the output before r; and the logits
            activations=2 * (2 * hidden + problem.input_size) + 2 * hidden + 2 * problem.num_classes,
            backbone=fully_connected_backbone(problem, hidden, seed, lambda _, i: (2 / i) ** 0.5),
        )


class BatchE(Method):
    """The learner: shared weights, and per task and layer r [O] and s [I]."""

    def __init__(self, spec: BatchESpec, surroundings: Surroundings) -> None:
        del spec  # it only says how the first task is trained
        self._surroundings = surroundings
        self._weights = SharedWeights(surroundings)

    def start_shared(self) -> Tensors:
        """The drawn weights."""
        return {f"{name}.weight": weight_OI for name, weight_OI in self._surroundings.backbone.items()}

    def start(self, tasks: Sequence[int]) -> Tensors:
        """Random signs, drawn anew for each task."""
        state = {}
        for name, (num_outputs, num_inputs) in ((n, w.shape) for n, w in self._surroundings.backbone.items()):
            state[f"{name}.r"] = self._surroundings.draw_signs(tasks, f"{name}.r", (num_outputs,)).requires_grad_()
            state[f"{name}.s"] = self._surroundings.draw_signs(tasks, f"{name}.s", (num_inputs,)).requires_grad_()
        return state

    def logits(self, state: Tensors, images_GBd: torch.Tensor) -> torch.Tensor:
        """The layers in order, each with the task's factors."""

        def layer(name: str, input_GBI: torch.Tensor) -> torch.Tensor:
            weight_OI = self._weights(name, state[f"{name}.weight"])
            out_factor_GO, in_factor_GI = state[f"{name}.r"], state[f"{name}.s"]
            return dense.rank_one_linear(input_GBI, weight_OI, out_factor_GO, in_factor_GI, self._surroundings.kernel)

        return fully_connected(self._surroundings.normalised(images_GBd), layer)

    def pack(self, state: Tensors) -> Tensors:
        """The factors as they are."""
        return state

    def unpack(self, kept: Tensors, tasks: Sequence[int]) -> Tensors:
        """The factors as they are."""
        del tasks
        return kept
