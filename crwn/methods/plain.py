"""A plain network that all tasks train and that is not told the task: the basis of most methods in the field.

It is a built-in network, or a torch module of a plug-in (`modules.py`). FC_H is d -> H -> H -> m with ReLU between,
with or without biases. A ResNet-18 has batch normalisation with gain, shift and running statistics, all shared by the
tasks, and no biases. A method contains a `PlainNetwork`; it does not inherit.

FC_H is initialised as in mammoth (github.com/aimagelab/mammoth, `backbone/MNISTMLP.py`): weights xavier-uniform, biases
0. A ResNet-18 is initialised from N(0, 2/fan_in), our choice; Dynamos's backbone as torch's layers are by default,
from U(+-1/sqrt(fan_in)), but biases start at 0.

Shapes: G lanes, B examples per lane, m classes; layers are [O outputs, I inputs]; C channels.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from crwn.backbone import ArraySpec, BackboneSpec
from crwn.faults import InvalidError
from crwn.lazy import LazyModule
from crwn.methods.modules import ModuleNetwork, examined
from crwn.methods.networks import (
    MAX_COPIED,
    RUNNING_MEAN,
    RUNNING_VARIANCE,
    Network,
    Passed,
    normalise,
    num_statistics,
    num_weights,
    parse_network,
    plain_multiply_adds,
    start_statistics,
)
from crwn.methods.protocol import NETWORKS, ScaleError, Step, Surroundings, Tensors, trained_from
from crwn.spec import Blueprint, Need, ProblemShape, TrainingSpec

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import torch
    from torch.nn import functional

    from crwn.batches import Batch
    from crwn.methods.networks import ConvWeight
    from crwn.nn import kernels, losses
else:
    torch = LazyModule("torch")
    functional = LazyModule("torch.nn.functional")
    kernels = LazyModule("crwn.nn.kernels")
    losses = LazyModule("crwn.nn.losses")


class PlainNetwork:
    """The network of a scale.

    Args:
        surroundings: what the method is built from.
        biases: whether FC_H has biases.
    """

    def __init__(self, surroundings: Surroundings, *, biases: bool) -> None:
        self._network = (
            ModuleNetwork(surroundings)
            if surroundings.scale in NETWORKS
            else _LayeredNetwork(surroundings, biases=biases)
        )

    @property
    def by_hand(self) -> bool:
        """Whether `Passed.by_hand` gives the gradients."""
        return self._network.by_hand

    def start(self) -> Tensors:
        """The initial state: trained tensors, which require a gradient, and moving ones, such as running statistics."""
        return self._network.start()

    def logits(
        self, state: Tensors, images: torch.Tensor, *, training: bool = False, moved: Tensors | None = None
    ) -> torch.Tensor:
        """Class scores [G, B, m] of bytes [G, B, ...], all lanes as one batch; see `Method.logits`."""
        return self._network.logits(state, images, training=training, moved=moved)

    def learn(self, state: Tensors, batch: Batch) -> Step:
        """The step of a batch: its cross-entropy."""
        moved: Tensors = {}
        passed = self.passed(state, [batch.images], moved)
        (logits_GBm,) = passed.logits
        loss_G, slopes_GBm = losses.mean_with_slopes(logits_GBm, batch.labels)
        by_hand = passed.by_hand(loss_G, [slopes_GBm])
        return Step(loss_G=loss_G, logits_GBm=logits_GBm, moved=moved, by_hand=by_hand)

    def passed(self, state: Tensors, batches: Sequence[torch.Tensor], moved: Tensors) -> Passed:
        """The forward pass of several batches of bytes [G, B, ...] in training, each batch-normalised separately.

        Args:
            state: as in `logits`.
            batches: batches with the same number of lanes.
            moved: receives the moving tensors after the last batch, such as running statistics.
        """
        return self._network.passed(state, batches, moved)

    @property
    def head_names(self) -> list[str]:
        """The names of the last layer's weights [m, I] and, if it has one, its bias [m]."""
        return self._network.head_names

    def features(self, state: Tensors, images: torch.Tensor) -> torch.Tensor:
        """The input of the head for bytes [B, ...], in evaluation mode: [B, I]."""
        return self._network.features(state, images)

    @property
    def examples_at_once(self) -> int:
        """The best number of examples per call of `squared_gradients`, which holds a copy of parameters for each."""
        return self._network.examples_at_once

    def squared_gradients(self, state: Tensors, images: torch.Tensor, labels_B: torch.Tensor) -> Tensors:
        """The sum over examples of p(y|x) (d log p(y|x))^2 for all trained tensors, in evaluation mode.

        Args:
            state: as in `logits`.
            images: bytes [B, ...].
            labels_B: the true labels.
        """
        return self._network.squared_gradients(state, images, labels_B)


class _LayeredNetwork:
    """A built-in network.

    Args:
        surroundings: what the method is built from.
        biases: whether FC_H has biases.
    """

    def __init__(self, surroundings: Surroundings, *, biases: bool) -> None:
        self._surroundings = surroundings
        self._network = parse_network(surroundings.scale, surroundings.problem)
        self._biased = _biased(self._network, biases=biases)
        self._head = list(self._network.layers)[-1]

    @property
    def by_hand(self) -> bool:
        """Whether `Passed.by_hand` gives the gradients: unless there is batch normalisation."""
        return not self._network.normalised

    def start(self) -> Tensors:
        """The initial state.

        Trained: weights [O, I] or [O, I, k, k], biases [O], gains and shifts [C]. Moving: running statistics [C].
        """
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
        return self._scores(
            state, images, linear=functools.partial(self._linear, state), training=training, moved=moved
        )

    def passed(self, state: Tensors, batches: Sequence[torch.Tensor], moved: Tensors) -> Passed:
        """The forward pass of several batches of bytes [G, B, ...] in training, each batch-normalised separately.

        Without normalisation, they go through the network as one batch, which hardly takes longer than a single one.

        Args:
            state: as in `logits`.
            batches: batches with the same number of lanes.
            moved: receives the running statistics after the last batch.
        """
        if self._network.normalised:
            scores = [self.logits({**state, **moved}, batch, training=True, moved=moved) for batch in batches]
            return Passed(scores, None)
        images = torch.cat(list(batches), dim=1) if len(batches) > 1 else batches[0]
        hidden_XI = self._surroundings.normalised(images).flatten(2).flatten(0, 1)
        inputs: list[torch.Tensor] = []
        for name in self._network.layers:
            inputs.append(functional.relu_(hidden_XI) if inputs else hidden_XI)
            hidden_XI = self._linear(state, name, inputs[-1])
        logits_GXm = hidden_XI.view(*images.shape[:2], -1)
        scores = [logits_GXm]
        if len(batches) > 1:
            scores = list(logits_GXm.split([batch.shape[1] for batch in batches], dim=1))
        return Passed(scores, lambda slopes_GXm: self._gradients(state, inputs, slopes_GXm.flatten(0, 1)))

    @property
    def head_names(self) -> list[str]:
        """The names of the last layer's weights [m, I] and, if it has one, its bias [m]."""
        return [f"{self._head}.weight", *([f"{self._head}.bias"] if self._head in self._biased else [])]

    def features(self, state: Tensors, images: torch.Tensor) -> torch.Tensor:
        """The input of the head for bytes [B, ...], in evaluation mode: [B, I]."""
        inputs: Tensors = {}

        def linear(name: str, input_BI: torch.Tensor) -> torch.Tensor:
            inputs[name] = input_BI
            return self._linear(state, name, input_BI)

        with torch.no_grad():
            self._forward(state, images[None], linear=linear, conv_weight=lambda name: state[f"{name}.weight"][None])
        return inputs[self._head]

    @property
    def examples_at_once(self) -> int:
        """The best number of examples per call of `squared_gradients`, which holds a copy of parameters for each."""
        copied = [layer.num_weights for layer in self._network.layers.values() if layer.is_convolution]
        return max(1, MAX_COPIED // sum(copied)) if copied else 500

    def squared_gradients(self, state: Tensors, images: torch.Tensor, labels_B: torch.Tensor) -> Tensors:
        """The sum over examples of p(y|x) (d log p(y|x))^2 for all trained tensors, in evaluation mode.

        Exact: for a matrix, an example's gradient is the outer product of the layer's input and the gradient of its
        output, so the squares are a product too (Goodfellow 2015, arXiv:1510.01799). Of all other tensors, each example
        gets its own copy, and so its own gradient.

        Args:
            state: as in `logits`.
            images: bytes [B, ...].
            labels_B: the true labels.
        """
        state = {name: tensor.detach() for name, tensor in state.items()}
        inputs: Tensors = {}
        outputs: Tensors = {}

        def linear(name: str, input_BI: torch.Tensor) -> torch.Tensor:
            inputs[name] = input_BI.detach()
            outputs[name] = self._linear(state, name, input_BI).requires_grad_()
            return outputs[name]

        num_copies, copies = len(labels_B), dict[str, torch.Tensor]()
        for name in self._network.normalised:
            for part in ("weight", "gain", "shift"):
                tensor = state[f"{name}.{part}"]
                copies[f"{name}.{part}"] = tensor.expand(num_copies, *tensor.shape).requires_grad_()
            for part in (RUNNING_MEAN, RUNNING_VARIANCE):
                state[f"{name}{part}"] = state[f"{name}{part}"].expand(num_copies, -1).contiguous()
        with torch.enable_grad():
            logits_B1m = self._forward(
                {**state, **copies}, images[:, None], linear=linear, conv_weight=lambda name: copies[f"{name}.weight"]
            )
            log_p_B = -losses.cross_entropies(logits_B1m, labels_B[:, None])[:, 0]
        found = torch.autograd.grad(log_p_B.sum(), [*outputs.values(), *copies.values()])
        slopes = {
            name: slope.to(self._surroundings.dtype) for name, slope in zip([*outputs, *copies], found, strict=True)
        }
        p_B = log_p_B.detach().exp().to(self._surroundings.dtype)
        squares = {name: torch.tensordot(p_B, slopes[name] ** 2, dims=1) for name in copies}
        for name, input_BI in inputs.items():
            weighted_BO = p_B[:, None] * slopes[name] ** 2
            squares[f"{name}.weight"] = weighted_BO.mT @ input_BI.to(weighted_BO.dtype) ** 2
            if f"{name}.bias" in state:
                squares[f"{name}.bias"] = weighted_BO.sum(dim=0)
        return squares

    def _scores(
        self,
        state: Tensors,
        images: torch.Tensor,
        *,
        linear: Callable[[str, torch.Tensor], torch.Tensor],
        training: bool,
        moved: Tensors | None = None,
    ) -> torch.Tensor:
        """The class scores [G, B, m] of bytes [G, B, ...]; all lanes form one batch of the same network."""
        logits_1Xm = self._forward(
            state,
            images if len(images) == 1 else images.flatten(0, 1)[None],
            linear=linear,
            conv_weight=lambda name: state[f"{name}.weight"][None],
            training=training,
            moved=moved,
        )
        return logits_1Xm if len(images) == 1 else logits_1Xm.view(*images.shape[:2], -1)

    def _gradients(self, state: Tensors, inputs: Sequence[torch.Tensor], slopes_XO: torch.Tensor) -> Tensors:
        """The gradients of dense layers' weights and biases, from their inputs and the scores' gradient."""
        dtype = self._surroundings.dtype
        found: Tensors = {}
        for name, input_XI in reversed(list(zip(self._network.layers, inputs, strict=True))):
            found[f"{name}.weight"] = kernels.cast(slopes_XO.t() @ input_XI, dtype)
            if name in self._biased:
                found[f"{name}.bias"] = kernels.cast(slopes_XO.sum(dim=0), dtype)
            if input_XI is not inputs[0]:  # it is the output of ReLU: positive exactly where ReLU's input was
                below_XI = slopes_XO @ kernels.cast(state[f"{name}.weight"], slopes_XO.dtype)
                slopes_XO = torch.ops.aten.threshold_backward.default(below_XI, input_XI, 0)
        return found

    def _forward(
        self,
        state: Tensors,
        images: torch.Tensor,
        *,
        linear: Callable[[str, torch.Tensor], torch.Tensor],
        conv_weight: ConvWeight,
        training: bool = False,
        moved: Tensors | None = None,
    ) -> torch.Tensor:
        """The class scores of bytes [G, B, ...] in G networks at once.

        The function that applies a layer gets matrices: for small batches, they take a third less time than batches of
        matrices.
        """

        def linears(names: Sequence[str], input_GBI: torch.Tensor) -> torch.Tensor:
            hidden_XI = input_GBI.flatten(0, 1)
            for number, name in enumerate(names):
                hidden_XI = linear(name, functional.relu(hidden_XI) if number else hidden_XI)
            return hidden_XI.view(*input_GBI.shape[:2], -1)

        norm = normalise(state, training=training, moved=moved)
        pixels = self._surroundings.normalised(images)
        return self._network.forward(pixels, linears=linears, conv_weight=conv_weight, norm=norm)

    def _linear(self, state: Tensors, name: str, input_XI: torch.Tensor) -> torch.Tensor:
        dtype = self._surroundings.product_dtype
        bias_O = kernels.cast(state[f"{name}.bias"], dtype) if name in self._biased else None
        return functional.linear(input_XI, kernels.cast(state[f"{name}.weight"], dtype), bias_O)


def plain_blueprint(
    scale: str,
    problem: ProblemShape,
    seed: int,
    *,
    biases: bool,
    needs: frozenset[Need] = frozenset(),
    examples_kept: int = 0,
    examples_replayed: int = 0,
    memories: int = 0,
) -> Blueprint:
    """The blueprint of a method with a plain network.

    Args:
        scale: FC_H, a ResNet-18, or the name of a user's own network.
        problem: the benchmark's sizes.
        seed: the trial's seed.
        biases: whether FC_H has biases; a user's own network determines this itself.
        needs: what the method needs to be told.
        examples_kept: capacity of its replay buffer, in images.
        examples_replayed: replayed images per batch.
        memories: numbers stored per trained parameter.

    Raises:
        ValueError: the scale is unknown, its network cannot be used, or is a user's own without biases.
    """
    sizes = _module_sizes(scale, problem, biases=biases) if scale in NETWORKS else _sizes(scale, problem, biases=biases)
    return Blueprint(
        params_per_task=sizes.parameters,
        trained_per_task=sizes.trained,
        stored_per_task=0,
        stored_shared=sizes.stored,
        moves_shared="always",
        needs=needs,
        examples_kept=examples_kept,
        examples_replayed=examples_replayed,
        stored_memory=memories * sizes.trained,
        multiply_adds=sizes.multiply_adds,
        activations=sizes.activations,
        backbone=BackboneSpec(seed=seed, arrays=sizes.arrays),
        draws=sizes.draws,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sizes:
    """What a network adds to a blueprint: numbers of its parameters, of the trained ones and of all it stores, ..."""

    parameters: int
    trained: int
    stored: int
    multiply_adds: int
    activations: int
    arrays: tuple[ArraySpec, ...] = ()
    draws: bool = False


def _sizes(scale: str, problem: ProblemShape, *, biases: bool) -> _Sizes:
    """Those of a built-in network."""
    if re.search(r"[.:/\\]", scale):
        raise ScaleError(
            "network-is-a-path",
            f"scale: expected the name of a network, given the path {scale!r}, of which nothing is imported. A plug-in "
            'file declares a network under a name, NETWORKS = {"mine": mine}; the sweep lists it, plugins: [nets.py], '
            "and the command names it, --plugin nets.py. An installed distribution has an entry point in the group "
            "crwn.networks",
        )
    own = f": {', '.join(NETWORKS)}" if NETWORKS else " (docs/plugins.md)"
    network = parse_network(scale, problem, f", or a network of your own{own}")
    trained = num_trained(network, biases=biases)
    return _Sizes(
        parameters=trained,
        trained=trained,
        stored=trained + num_statistics(network),
        multiply_adds=plain_multiply_adds(network),
        activations=network.activations,
        arrays=tuple(_drawn(name, layer.shape, network) for name, layer in network.layers.items()),
    )


def _module_sizes(name: str, problem: ProblemShape, *, biases: bool) -> _Sizes:
    """Those of a user's own."""
    if not biases:
        raise InvalidError(
            "biases-of-own-network",
            f"biases: expected to be left out with the network {name!r}, which decides itself what has biases; "
            "given false, a setting of FC_H",
        )
    found = examined(name, problem)
    return _Sizes(
        parameters=found.num_parameters,
        trained=found.num_trained,
        stored=found.num_stored,
        multiply_adds=found.multiply_adds,
        activations=found.activations,
        draws=True,
    )


def plain_training(learning_rate: float, *, weight_decay: float = 0.0) -> TrainingSpec:
    """mammoth's settings for sequential MNIST: one epoch of SGD per task, in batches of 10."""
    return TrainingSpec(
        learning_rate=learning_rate, optimizer="sgd", batch_size=10, epochs_per_task=1, weight_decay=weight_decay
    )


def num_trained(network: Network, *, biases: bool) -> int:
    """Number of trained parameters: weights, biases, gains and shifts."""
    return num_weights(network) + sum(_biased(network, biases=biases).values()) + 2 * sum(network.normalised.values())


def _biased(network: Network, *, biases: bool) -> dict[str, int]:
    """The number of biases by layer: of all layers of an FC_H with biases, and where a layer always has one."""
    every = biases and not network.normalised
    return {name: layer.num_outputs for name, layer in network.layers.items() if every or layer.has_bias}


def _drawn(name: str, shape: tuple[int, ...], network: Network) -> ArraySpec:
    fan_in = network.layers[name].fan_in
    if network.initial == "he":
        return ArraySpec(name=name, shape=shape, distribution="normal", parameter=(2 / fan_in) ** 0.5)
    bound = (6 / sum(shape)) ** 0.5 if network.initial == "glorot" else fan_in**-0.5
    return ArraySpec(name=name, shape=shape, distribution="uniform", parameter=bound)
