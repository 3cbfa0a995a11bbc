"""PSP, parameter superposition: one set of weights learns every task, each seen through its own random rotation.

Source: Cheung, Terekhov, Chen, Agrawal & Olshausen 2019, "Superposition of many models into one", arXiv:1902.05522,
rotational superposition: y = W (C_t x) in every layer, C_t a fixed random orthogonal matrix of the task. W starts
xavier-normal and is trained by every task, so the tasks disturb one another and are learned strictly in turn. FC_H is
d -> H -> H -> m with ReLU between, no biases.

A task's contexts are drawn from its own random stream when they are needed, by a QR decomposition in float64, and kept
as long as `CACHE_BYTES` allows. (QR's last bits depend on processor and threads.)

Shapes: G tasks, B examples a task, d numbers an image, m classes; layers are [O outputs, I inputs].
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from crwn.lazy import LazyModule
from crwn.methods.protocol import (
    FULLY_CONNECTED,
    Method,
    Surroundings,
    Tensors,
    fully_connected,
    fully_connected_backbone,
    fully_connected_layers,
    parse_scale,
)
from crwn.spec import READ_STRICTLY, Blueprint, ProblemShape, TrainingSpec, check_fields, kind_field

if TYPE_CHECKING:
    import torch

    from crwn.nn import dense
else:
    torch = LazyModule("torch")
    dense = LazyModule("crwn.nn.dense")

CACHE_BYTES = 2**29
"""Of contexts that are kept: all 100 of P-MNIST at FC256."""
FIRST = "layer1.rotation"
PREPARED_AT_ONCE = 10_000
"""Images, so that what is between bytes and result takes little memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PSPSpec:
    """PSP has no settings of its own besides the training."""

    __pydantic_config__: ClassVar[Mapping[str, Any]] = READ_STRICTLY

    kind: str = kind_field("psp")

    def __post_init__(self) -> None:
        check_fields(self)

    def training(self) -> TrainingSpec:
        """The paper's: RMSProp at 1e-4."""
        return TrainingSpec(learning_rate=1e-4)

    def blueprint(self, scale: str, problem: ProblemShape, seed: int) -> Blueprint:
        """FC_H and the contexts of a task, which the paper counts (FC256 on 784 pixels: 1,014,528)."""
        hidden = parse_scale(scale, FULLY_CONNECTED)
        layers = fully_connected_layers(problem, hidden)
        num_weights = sum(o * i for o, i in layers.values())
        num_contexts = sum(i * i for _, i in layers.values())
        first = hidden * problem.input_size + problem.input_size**2  # nothing flows back into the images
        return Blueprint(
            grouping="one",
            params_per_task=num_weights + num_contexts,
            trained_per_task=num_weights,
            stored_per_task=0,  # contexts are drawn again from the seed
            stored_shared=num_weights,
            shared_training="always",
            multiply_adds=3 * num_weights + 2 * num_contexts - first,
            activations=2 * (2 * hidden + problem.input_size) + problem.num_classes,
            backbone=fully_connected_backbone(problem, hidden, seed, lambda o, i: (2 / (o + i)) ** 0.5),
        )


class PSP(Method):
    """The learner: shared weights, and per task and layer a fixed rotation [I, I]."""

    def __init__(self, spec: PSPSpec, surroundings: Surroundings) -> None:
        del spec  # it has no settings
        self._surroundings = surroundings
        item_bytes = surroundings.product_dtype.itemsize
        task_bytes = item_bytes * sum(weight.shape[1] ** 2 for weight in surroundings.backbone.values())
        self._rotations = functools.lru_cache(maxsize=max(1, CACHE_BYTES // task_bytes))(self._draw)

    def start_shared(self) -> Tensors:
        """The drawn weights."""
        return {f"{name}.weight": weight_OI for name, weight_OI in self._surroundings.backbone.items()}

    def start(self, tasks: Sequence[int]) -> Tensors:
        """The tasks' rotations, which are not trained."""
        drawn = [self._rotations(task) for task in tasks]
        return {name: torch.stack([rotations[name] for rotations in drawn]) for name in drawn[0]}

    def prepare(self, task: int, images_Nd: torch.Tensor) -> torch.Tensor:
        """The images as the first layer's weights see them: normalised and rotated, neither of which is learned."""
        rotation_dd = self._rotations(task)[FIRST]
        normalised, kernel = self._surroundings.normalised, self._surroundings.kernel
        parts = images_Nd.split(PREPARED_AT_ONCE)
        return torch.cat([kernel.linear(normalised(part).flatten(1), rotation_dd) for part in parts])

    def logits(self, state: Tensors, images_GBd: torch.Tensor) -> torch.Tensor:
        """The layers in order, each seen through the task's rotation, the first in the prepared images."""
        kernel = self._surroundings.kernel

        def layer(name: str, input_GBI: torch.Tensor) -> torch.Tensor:
            weight_OI = state[f"{name}.weight"].to(input_GBI.dtype)
            if f"{name}.rotation" == FIRST:
                return dense.linear(input_GBI, weight_OI, kernel)
            return dense.rotated_linear(input_GBI, weight_OI, state[f"{name}.rotation"], kernel)

        return fully_connected(images_GBd, layer)

    def pack(self, state: Tensors) -> Tensors:
        """Nothing: the rotations are drawn again."""
        del state
        return {}

    def unpack(self, kept: Tensors, tasks: Sequence[int]) -> Tensors:
        """The tasks' rotations."""
        del kept
        return self.start(tasks)

    def _draw(self, task: int) -> Tensors:
        """A task's rotations [I, I] by `<layer>.rotation`, uniform over the orthogonal matrices."""
        drawn = {}
        for name, weight_OI in self._surroundings.backbone.items():
            size = weight_OI.shape[1]
            (stream,) = self._surroundings.streams([task], f"{name}.rotation")
            q_II, r_II = torch.linalg.qr(torch.from_numpy(stream.standard_normal((size, size))))
            # A QR decomposition is unique up to signs; with those of R's diagonal, Q is uniform (Mezzadri 2007).
            rotation_II = q_II * r_II.diagonal().sign()
            drawn[f"{name}.rotation"] = rotation_II.to(self._surroundings.device, self._surroundings.product_dtype)
        return drawn
