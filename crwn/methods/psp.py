"""PSP, parameter superposition: all tasks train one set of weights, each through its own random rotation.

Source: Cheung, Terekhov, Chen, Agrawal & Olshausen 2019, "Superposition of many models into one", arXiv:1902.05522,
rotational superposition: y = W (C_t x) in every layer, where C_t is a fixed random orthogonal matrix per task. W is
initialised xavier-normal and trained by every task, so tasks interfere and are learned strictly in turn. FC_H is
d -> H -> H -> m with ReLU between, no biases.

In a ResNet-18, superposition is binary: each layer's weights are multiplied by fixed random signs [I, k, k] per task,
except the stem's. W is initialised kaiming-normal by fan-out. Batch normalisation has no gain and shift and uses the
batch's own statistics, also in tests; test batches have the training's size and a fixed shuffled order.

A task's contexts are drawn from its own random stream on demand, by a QR decomposition in float64, and cached within
`CACHE_BYTES`. (The last bits of QR depend on processor and threads.)

Shapes: G tasks, B examples per task, d values per image, m classes; layers are [O outputs, I inputs].
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from crwn.lazy import LazyModule
from crwn.methods.networks import (
    Layer,
    drawn_normal,
    in_a_row,
    linear_inputs,
    num_weights,
    paper_training,
    parse_network,
    plain_multiply_adds,
)
from crwn.methods.protocol import (
    Method,
    Surroundings,
    Tensors,
    trained_from,
)
from crwn.spec import READ_STRICTLY, Blueprint, ProblemShape, TrainingSpec, check_fields, kind_field

if TYPE_CHECKING:
    import torch

    from crwn.nn import dense, normalisation, weights
else:
    torch = LazyModule("torch")
    dense = LazyModule("crwn.nn.dense")
    normalisation = LazyModule("crwn.nn.normalisation")
    weights = LazyModule("crwn.nn.weights")

CACHE_BYTES = 2**29
"""Size limit of the cache of contexts: fits all 100 of p-mnist at FC256."""
FIRST = "layer1.rotation"
PREPARED_AT_ONCE = 2_000
"""Images prepared at once: few enough for intermediate results to stay in the processor's caches."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PSPSpec:
    """PSP's settings: none besides the training settings."""

    __pydantic_config__: ClassVar[Mapping[str, Any]] = READ_STRICTLY

    kind: str = kind_field("psp")

    def __post_init__(self) -> None:
        check_fields(self)

    def training(self, scale: str) -> TrainingSpec:
        """The paper's settings: RMSProp at 1e-4, or Adam from 1e-3 for a ResNet."""
        return paper_training(scale, fully_connected_rate=1e-4, resnet_rate=1e-3)

    def blueprint(self, scale: str, problem: ProblemShape, seed: int) -> Blueprint:
        """A network and, for FC_H, a task's rotations, which the paper counts (FC256 on 784 pixels: 1,014,528)."""
        network = parse_network(scale, problem)
        weights, is_binary = num_weights(network), bool(network.normalised)
        rotations = [layer.fan_in**2 for layer in network.layers.values() if not is_binary]
        return Blueprint(
            params_per_task=weights + sum(rotations),
            trained_per_task=weights,
            stored_per_task=0,  # contexts are drawn again from the seed
            stored_shared=weights,
            moves_shared="always",
            multiply_adds=plain_multiply_adds(network) + 2 * sum(rotations) - sum(rotations[:1]),
            activations=network.activations + linear_inputs(network),
            backbone=drawn_normal(network, seed, _binary_std if is_binary else _xavier_std),
            tests_by_batch=is_binary,
        )


def _xavier_std(layer: Layer) -> float:
    return math.sqrt(2 / sum(layer.shape))


def _binary_std(layer: Layer) -> float:
    """Kaiming's standard deviation by fan-out: outputs times kernel positions."""
    return math.sqrt(2 / (layer.num_outputs * math.prod(layer.shape[2:])))


class PSP(Method):
    """The learner: shared weights, and per task and layer a fixed rotation [I, I] or signs [I, k, k]."""

    def __init__(self, spec: PSPSpec, surroundings: Surroundings) -> None:
        del spec  # it has no settings
        self._surroundings = surroundings
        self._network = parse_network(surroundings.scale, surroundings.problem)
        self._is_binary = bool(self._network.normalised)
        item_bytes = surroundings.product_dtype.itemsize
        task_bytes = item_bytes * sum(weight.shape[1] ** 2 for weight in surroundings.backbone.values())
        self._rotations = functools.lru_cache(maxsize=max(1, CACHE_BYTES // task_bytes))(self._draw)

    def start_shared(self) -> Tensors:
        """The drawn weights, trainable."""
        return trained_from(self._surroundings.backbone)

    def start(self, tasks: Sequence[int]) -> Tensors:
        """The tasks' contexts, which are not trained."""
        if self._is_binary:
            layers = [(name, layer) for name, layer in self._network.layers.items() if not layer.first]
            draw = self._surroundings.draw_signs
            return {f"{name}.signs": draw(tasks, f"{name}.signs", layer.shape[1:]) for name, layer in layers}
        drawn = [self._rotations(task) for task in tasks]
        return {name: torch.stack([rotations[name] for rotations in drawn]) for name in drawn[0]}

    def prepare(self, task: int | None, images_Nd: torch.Tensor) -> torch.Tensor:
        """For FC_H, the input of the first layer's weights: images normalised and rotated, neither being learned."""
        if self._is_binary:
            return images_Nd
        assert task is not None  # the blueprint needs tasks to be told
        rotation_dd = self._rotations(task)[FIRST]
        normalised, kernel = self._surroundings.normalised, self._surroundings.kernel
        prepared_Nd = rotation_dd.new_empty(len(images_Nd), len(rotation_dd))
        for part, place in zip(images_Nd.split(PREPARED_AT_ONCE), prepared_Nd.split(PREPARED_AT_ONCE), strict=True):
            place.copy_(kernel.linear(normalised(part).flatten(1), rotation_dd))
        return prepared_Nd

    def logits(
        self, state: Tensors, images: torch.Tensor, *, training: bool = False, moved: Tensors | None = None
    ) -> torch.Tensor:
        """The class scores: the layers in order, each with the task's context; FC_H's first is applied in `prepare`.

        A ResNet's batch normalisation uses the batch's own statistics, also in tests.
        """
        del training, moved
        kernel, dtype = self._surroundings.kernel, self._surroundings.product_dtype

        def seen(name: str) -> torch.Tensor:
            weight, signs = state[f"{name}.weight"], state.get(f"{name}.signs")
            return weight[None] if signs is None else weight * signs[:, None]

        def norm(name: str, input_BXHW: torch.Tensor) -> torch.Tensor:
            del name
            return normalisation.batch_norm(input_BXHW, None, training=True)

        def layer(name: str) -> dense.DenseLayer:
            if self._is_binary:
                return dense.DenseLayer(weight=weights.OwnWeight(seen(name).to(dtype), kernel))
            weight_OI = state[f"{name}.weight"].to(dtype)
            if f"{name}.rotation" == FIRST:
                return dense.DenseLayer(weight=weights.SharedWeight(weight_OI, kernel))
            return dense.DenseLayer(weight=weights.RotatedWeight(weight_OI, state[f"{name}.rotation"], kernel))

        linears = in_a_row(layer, kernel)
        if self._is_binary:
            pixels = self._surroundings.normalised(images)
            return self._network.forward(pixels, linears=linears, conv_weight=seen, norm=norm)
        return self._network.forward(images, linears=linears, conv_weight=None, norm=None)

    def pack(self, state: Tensors) -> Tensors:
        """Nothing: the contexts are drawn again."""
        del state
        return {}

    def unpack(self, kept: Tensors, tasks: Sequence[int]) -> Tensors:
        """The tasks' contexts."""
        del kept
        return self.start(tasks)

    def _draw(self, task: int) -> Tensors:
        """A task's rotations [I, I] by `<layer>.rotation`, uniform over the orthogonal matrices."""
        drawn = {}
        for name, weight_OI in self._surroundings.backbone.items():
            size = weight_OI.shape[1]
            (stream,) = self._surroundings.streams([task], f"{name}.rotation")
            q_II, r_II = torch.linalg.qr(torch.from_numpy(stream.standard_normal((size, size))))
            # A QR decomposition is unique up to signs; with the signs of R's diagonal, Q is uniform (Mezzadri 2007).
            rotation_II = q_II * r_II.diagonal().sign()
            drawn[f"{name}.rotation"] = rotation_II.to(self._surroundings.device, self._surroundings.product_dtype)
        return drawn
