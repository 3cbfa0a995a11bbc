"""A plain network that all tasks train and that is not told the task: what methods of the field are usually built on.

FC_H is d -> H -> H -> m with ReLU between, with biases or without. A ResNet-18 has batch normalisation with gain,
shift and running statistics, which all tasks share, and no biases. A method has a `PlainNetwork`, and is none.

FC_H starts as mammoth's does (github.com/aimagelab/mammoth, `backbone/MNISTMLP.py`): weights xavier-uniform, biases 0.
A ResNet-18 starts from N(0, 2/fan_in), our choice.

Shapes: G lanes, B examples per lane, m classes; layers are [O outputs, I inputs]; C channels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from crwn.backbone import ArraySpec, BackboneSpec
from crwn.lazy import LazyModule
from crwn.methods.networks import (
    Network,
    normalise,
    num_statistics,
    num_weights,
    parse_network,
    plain_multiply_adds,
    start_statistics,
)
from crwn.methods.protocol import Surroundings, Tensors, trained_from
from crwn.spec import Blueprint, Need, Presentation, ProblemShape, TrainingSpec

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch
    from torch.nn import functional
else:
    torch = LazyModule("torch")
    functional = LazyModule("torch.nn.functional")


class PlainNetwork:
    """The network of a scale.

    Args:
        surroundings: of the method.
        biases: whether FC_H has biases.
    """

    def __init__(self, surroundings: Surroundings, *, biases: bool) -> None:
        self._surroundings = surroundings
        self._network = parse_network(surroundings.scale, surroundings.problem)
        self._biased = _biased(self._network, biases=biases)

    def start(self) -> Tensors:
        """Weights [O, I] or [O, I, k, k], biases [O], gains and shifts [C], all trained; running statistics [C]."""
        surroundings = self._surroundings
        trained = trained_from(surroundings.backbone)
        for name, size in self._biased.items():
            trained[f"{name}.bias"] = torch.zeros(size, device=surroundings.device, dtype=surroundings.dtype)
        for name, channels in self._network.normalised.items():
            gain_C = torch.ones(channels, device=surroundings.device, dtype=surroundings.dtype)
            trained |= {f"{name}.gain": gain_C, f"{name}.shift": torch.zeros_like(gain_C)}
        statistics = start_statistics(self._network, surroundings, [0])
        moving = {name: tensor[0].clone() for name, tensor in statistics.items()}
        return {name: tensor.requires_grad_() for name, tensor in trained.items()} | moving

    def logits(
        self, state: Tensors, images: torch.Tensor, *, training: bool = False, moved: Tensors | None = None
    ) -> torch.Tensor:
        """Class scores [G, B, m] of bytes [G, B, ...]; see `Method.logits`."""
        lanes, dtype = images.shape[:2], self._surroundings.product_dtype

        def linears(names: Sequence[str], input_GBI: torch.Tensor) -> torch.Tensor:
            for number, name in enumerate(names):
                hidden_GBI = functional.relu(input_GBI) if number else input_GBI
                bias_O = state.get(f"{name}.bias")
                input_GBI = functional.linear(
                    hidden_GBI, state[f"{name}.weight"].to(dtype), None if bias_O is None else bias_O.to(dtype)
                )
            return input_GBI

        # All lanes are one batch of the one network.
        pixels = self._surroundings.normalised(images).flatten(0, 1)[None]
        logits_1Xm = self._network.forward(
            pixels,
            linears=linears,
            conv_weight=lambda name: state[f"{name}.weight"][None],
            norm=normalise(state, training=training, moved=moved),
        )
        logits_GBm: torch.Tensor = logits_1Xm[0].unflatten(0, lanes)
        return logits_GBm


def plain_blueprint(
    scale: str,
    problem: ProblemShape,
    seed: int,
    *,
    biases: bool,
    needs: frozenset[Need] = frozenset(),
    presentation: Presentation = "in turn",
    examples_kept: int = 0,
    memories: int = 0,
    outputs_kept: int = 0,
    passes: float = 1,
) -> Blueprint:
    """What a method builds of a plain network.

    Args:
        scale: FC_H or a ResNet-18.
        problem: the benchmark's sizes.
        seed: the trial's.
        biases: whether FC_H has biases.
        needs: what the method needs to be told.
        presentation: in which order it learns.
        examples_kept: images of its replay buffer.
        memories: numbers that are kept beside each trained one.
        outputs_kept: numbers that are kept beside each image of the buffer.
        passes: examples that go through the network for each one of the batch.
    """
    network = parse_network(scale, problem)
    trained = num_trained(network, biases=biases)
    return Blueprint(
        params_per_task=trained,
        trained_per_task=trained,
        stored_per_task=0,
        stored_shared=trained + num_statistics(network),
        moves_shared="always",
        needs=needs,
        presentation=presentation,
        examples_kept=examples_kept,
        stored_memory=memories * trained + outputs_kept * examples_kept,
        multiply_adds=round(passes * plain_multiply_adds(network)),
        activations=round(passes * network.activations),
        backbone=BackboneSpec(
            seed=seed, arrays=tuple(_drawn(name, layer.shape, network) for name, layer in network.layers.items())
        ),
    )


def plain_training(learning_rate: float, *, weight_decay: float = 0.0) -> TrainingSpec:
    """mammoth's for sequential MNIST: one epoch of SGD per task, in batches of 10."""
    return TrainingSpec(
        learning_rate=learning_rate, optimizer="sgd", batch_size=10, epochs_per_task=1, weight_decay=weight_decay
    )


def num_trained(network: Network, *, biases: bool) -> int:
    """Weights, biases, gains and shifts."""
    return num_weights(network) + sum(_biased(network, biases=biases).values()) + 2 * sum(network.normalised.values())


def _biased(network: Network, *, biases: bool) -> dict[str, int]:
    """The layers that have biases, and how many: those of an FC_H."""
    if not biases or network.normalised:
        return {}
    return {name: layer.num_outputs for name, layer in network.layers.items()}


def _drawn(name: str, shape: tuple[int, ...], network: Network) -> ArraySpec:
    layer = network.layers[name]
    if network.normalised:
        return ArraySpec(name=name, shape=shape, distribution="normal", parameter=(2 / layer.fan_in) ** 0.5)
    return ArraySpec(name=name, shape=shape, distribution="uniform", parameter=(6 / sum(shape)) ** 0.5)
