"""The networks that scales denote: their layers, known without torch, and their forward passes.

FC_H is d -> H -> H -> m with ReLU between. ResNet-18 comes in two forms: for images of up to 32 pixels, that of
SupSup's code (a 3x3 stem of stride 1, 10 base feature maps); for larger images, the standard one (a 7x7 stem of stride
2 and a 3x3 max-pool, 64 base feature maps). `kd` has k times as many feature maps; `nf<N>` has N. Neither has biases.

`dynamos` is the ungated backbone of Dynamos (Varma et al. 2023, `backbone/TinyResNet18.py` of
github.com/NeurAI-Lab/DynamicContinualLearning): a 3x3 stem of stride 1 and the first two stages of a ResNet-18, 32 and
64 maps, whose head has a bias where all tasks train one network. `dynamos-nf<N>` has N and 2 N maps.

Shapes: G tasks, B examples per task, d values per image, m classes; C channels, H height, W width, k kernel size.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

from crwn.backbone import ArraySpec, BackboneSpec
from crwn.lazy import LazyModule
from crwn.methods.protocol import (
    FULLY_CONNECTED,
    ByHand,
    ScaleError,
    ScaleFamily,
    Surroundings,
    Tensors,
    parse_scale,
    unknown_scale,
)
from crwn.spec import ProblemShape, TrainingSpec

if TYPE_CHECKING:
    import torch
    from torch.nn import functional

    from crwn.nn import dense, normalisation
    from crwn.nn.kernels import Kernel
else:
    torch = LazyModule("torch")
    functional = LazyModule("torch.nn.functional")
    dense = LazyModule("crwn.nn.dense")
    normalisation = LazyModule("crwn.nn.normalisation")

LinearLayers: TypeAlias = "Callable[[Sequence[str], torch.Tensor], torch.Tensor]"
"""Applies the named layers one after another, with ReLU between them, to inputs [G, B, I]: [G, B, O]."""
ConvWeight: TypeAlias = "Callable[[str], torch.Tensor]"
"""Returns the named convolution's weights as each task uses them: [G, O, I, k, k]."""
Norm: TypeAlias = "Callable[[str, torch.Tensor], torch.Tensor]"
"""Applies batch normalisation after the named convolution, to [B, G C, H, W]; the shape stays the same."""

Gate: TypeAlias = "Callable[[str, torch.Tensor, torch.Tensor], torch.Tensor]"
"""Called with the name of a block's convolution, its input and its output [B, C, H, W], or the block's sum after the
second one; returns what goes on to the rectifier."""
Initial: TypeAlias = Literal["glorot", "he", "torch"]
"""How a plain network's weights are drawn: by Glorot and Bengio, by He et al., or as torch's layers do by default."""

RUNNING_MEAN, RUNNING_VARIANCE = ".running_mean", ".running_var"
"""Suffixes of the names of a layer's running statistics."""

MULTIPLES = ScaleFamily(pattern=r"([1-9])d", examples="1d or 6d")
FEATURE_MAPS = ScaleFamily(pattern=r"nf([1-9][0-9]{0,3})", examples="nf10 or nf64")
DYNAMOS, DYNAMOS_MAPS = "dynamos", 32
DYNAMOS_NF = ScaleFamily(pattern=r"dynamos-nf([1-9][0-9]{0,3})", examples="dynamos-nf8")
REDUCED_UP_TO = 32
"""Largest image side, in pixels, for which ResNet-18 is the reduced one."""
REDUCED_MAPS, STANDARD_MAPS = 10, 64

MAX_COPIED = 2**24
"""Limit of the numbers copied in total to compute gradients per example."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One layer's sizes.

    Attributes:
        shape: shape of the weights: [O, I], or [O, I, k, k].
        stride: stride of a convolution.
        positions: output positions at which the weights are applied; 1 for a matrix.
        input_size: number of input values.
        first: whether its input is the image, which needs no gradient.
        has_bias: whether it has a bias in a plain network, whatever the method's settings.
    """

    shape: tuple[int, ...]
    stride: int = 1
    positions: int = 1
    input_size: int
    first: bool = False
    has_bias: bool = False

    @property
    def num_weights(self) -> int:
        """Number of weights."""
        return math.prod(self.shape)

    @property
    def fan_in(self) -> int:
        """Number of inputs that one output sums over."""
        return math.prod(self.shape[1:])

    @property
    def num_outputs(self) -> int:
        """O, the number of units or channels."""
        return self.shape[0]

    @property
    def is_convolution(self) -> bool:
        """Whether the layer is a convolution."""
        return len(self.shape) == 4

    @property
    def output_size(self) -> int:
        """Number of output values."""
        return self.num_outputs * self.positions

    @property
    def products(self) -> int:
        """Multiply-adds of the forward pass per example."""
        return self.num_weights * self.positions


class Network(Protocol):
    """The interface of networks: layers and their order."""

    @property
    def activations(self) -> int:
        """Number of values held per example during a training step."""
        ...

    @property
    def layers(self) -> Mapping[str, Layer]:
        """The layers by name, in forward order; a shortcut comes after the layers that it bypasses."""
        ...

    @property
    def normalised(self) -> Mapping[str, int]:
        """The number of batch-normalised channels, by the name of the preceding convolution."""
        ...

    @property
    def initial(self) -> Initial:
        """How a plain network's weights are drawn."""
        ...

    def forward(
        self, images: torch.Tensor, *, linears: LinearLayers, conv_weight: ConvWeight | None, norm: Norm | None
    ) -> torch.Tensor:
        """Class scores [G, B, m] of normalised images."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class FullyConnected:
    """FC_H.

    Attributes:
        layers: `layer1` to `layer3`.
    """

    layers: Mapping[str, Layer]

    @property
    def activations(self) -> int:
        """Every layer's input, and the scores."""
        return sum(layer.input_size for layer in self.layers.values()) + self.layers["layer3"].num_outputs

    @property
    def normalised(self) -> Mapping[str, int]:
        """Empty: there is no batch normalisation."""
        return {}

    @property
    def initial(self) -> Initial:
        """By Glorot and Bengio 2010."""
        return "glorot"

    def forward(
        self,
        images: torch.Tensor,
        *,
        linears: LinearLayers,
        conv_weight: ConvWeight | None = None,
        norm: Norm | None = None,
    ) -> torch.Tensor:
        """The class scores: the three layers in order, with ReLU between them.

        Args:
            images: normalised images, [G, B, d] or in their own shape.
            linears: applies named layers.
            conv_weight: not used.
            norm: not used.
        """
        del conv_weight, norm
        return linears(tuple(self.layers), images.flatten(2))


@dataclass(frozen=True, slots=True, kw_only=True)
class ResNet:
    """A stem, stages of two basic blocks, global average pooling, and the head; a ResNet-18 has four stages.

    Attributes:
        input_shape: channels, height, width of an image.
        layers: `stem`, `stage1.block1.conv1` and so on, `stage2.block1.shortcut`, `head`.
        is_standard: whether a max-pool follows the stem.
        initial: how a plain network's weights are drawn.
    """

    input_shape: tuple[int, int, int]
    layers: Mapping[str, Layer]
    is_standard: bool
    initial: Initial = "he"

    @property
    def activations(self) -> int:
        """Every layer's input, output, and normalised output."""
        return sum(layer.input_size + 2 * layer.output_size for layer in self.layers.values())

    @property
    def normalised(self) -> Mapping[str, int]:
        """The channels of all convolutions."""
        return {name: layer.num_outputs for name, layer in self.layers.items() if layer.is_convolution}

    def forward(
        self,
        images: torch.Tensor,
        *,
        linears: LinearLayers,
        conv_weight: ConvWeight | None,
        norm: Norm | None,
        gate: Gate | None = None,
    ) -> torch.Tensor:
        """The class scores.

        The channels of all tasks are concatenated, [B, G C, H, W]: a convolution with G groups applies each task's
        weights, and batch normalisation normalises each task's channels separately. The memory format is channels last:
        with few channels, this makes convolutions up to several times faster on CPUs.

        Args:
            images: normalised images, [G, B, C, H, W] or flattened.
            linears: applies the head.
            conv_weight: returns a convolution's weights.
            norm: normalises a convolution's output.
            gate: changes what each convolution of a block passes on; None: nothing does.
        """
        assert conv_weight is not None
        assert norm is not None
        num_tasks = len(images)

        def conv(name: str, input_BCHW: torch.Tensor) -> torch.Tensor:
            layer, weight_GOIkk = self.layers[name], conv_weight(name).to(input_BCHW.dtype)
            weight_XIkk = weight_GOIkk.flatten(0, 1).contiguous(memory_format=torch.channels_last)
            kernel, stride = layer.shape[-1], layer.stride
            if kernel == 1:  # subsample first: with 2 or 3 channels, oneDNN writes past the weight's gradient
                input_BCHW, stride = input_BCHW[:, :, ::stride, ::stride], 1
            output_BCHW = functional.conv2d(
                input_BCHW, weight_XIkk, stride=stride, padding=kernel // 2, groups=num_tasks
            )
            return norm(name, output_BCHW)

        images_GBCHW = images.reshape(*images.shape[:2], *self.input_shape)
        input_BCHW = images_GBCHW.transpose(0, 1).flatten(1, 2).contiguous(memory_format=torch.channels_last)
        hidden_BCHW = functional.relu_(conv("stem", input_BCHW))
        if self.is_standard:
            hidden_BCHW = functional.max_pool2d(hidden_BCHW, kernel_size=3, stride=2, padding=1)
        for block in dict.fromkeys(name.rpartition(".")[0] for name in self.layers if "." in name):
            inner_BCHW = conv(f"{block}.conv1", hidden_BCHW)
            if gate is not None:
                inner_BCHW = gate(f"{block}.conv1", hidden_BCHW, inner_BCHW)
            inner_BCHW = functional.relu_(inner_BCHW)
            output_BCHW = conv(f"{block}.conv2", inner_BCHW)
            is_changed = f"{block}.shortcut" in self.layers
            output_BCHW += conv(f"{block}.shortcut", hidden_BCHW) if is_changed else hidden_BCHW
            if gate is not None:
                output_BCHW = gate(f"{block}.conv2", inner_BCHW, output_BCHW)
            hidden_BCHW = functional.relu_(output_BCHW)
        features_BGC = hidden_BCHW.mean(dim=(2, 3)).unflatten(1, (num_tasks, -1))
        return linears(("head",), features_BGC.transpose(0, 1))


@dataclass(frozen=True, slots=True)
class Passed:
    """A network's forward pass over batches in training, and its backward pass.

    Attributes:
        logits: class scores [G, B, m] of each batch.
        back: maps the gradient with respect to all scores, batches concatenated, [G, X, m], to gradients by the name of
            the trained tensor; None if autograd computes them.
    """

    logits: list[torch.Tensor]
    back: Callable[[torch.Tensor], Tensors] | None

    def by_hand(self, loss_G: torch.Tensor, slopes: Sequence[torch.Tensor]) -> ByHand | None:
        """The gradients of a loss, given the gradient of its sum with respect to each batch's scores."""
        if self.back is None:
            return None
        with torch.no_grad():
            slopes_GXm = torch.cat(list(slopes), dim=1) if len(slopes) > 1 else slopes[0]
            return ByHand(loss_G=loss_G, gradients=self.back(slopes_GXm))


def in_a_row(layer: Callable[[str], dense.DenseLayer], kernel: Kernel) -> LinearLayers:
    """The argument `linears` of `Network.forward`, from a function that returns a named layer for this step.

    Args:
        layer: returns the layer with the given name.
        kernel: the trial's kernel.

    Returns:
        A function that applies named layers to [G, B, I]: [G, B, O].
    """
    return lambda names, input_GBI: dense.in_a_row(input_GBI, [layer(name) for name in names], kernel)


def is_built_in(scale: str) -> bool:
    """Whether a scale is that of a built-in network."""
    families = (FULLY_CONNECTED, MULTIPLES, FEATURE_MAPS, DYNAMOS_NF)
    return scale == DYNAMOS or any(re.fullmatch(family.pattern, scale) for family in families)


def parse_network(scale: str, problem: ProblemShape, more: str = "") -> Network:
    """The network that a scale denotes.

    Args:
        scale: the scale.
        problem: the benchmark's sizes.
        more: what a method takes besides, for the error.

    Raises:
        ScaleError: it denotes none.
    """
    side = max(problem.input_shape[1:])
    if scale == DYNAMOS:
        return dynamos_backbone(problem, DYNAMOS_MAPS)
    for family, build in (
        (FULLY_CONNECTED, lambda hidden: fully_connected(problem, hidden)),
        (MULTIPLES, lambda k: resnet18(problem, k * (REDUCED_MAPS if side <= REDUCED_UP_TO else STANDARD_MAPS))),
        (FEATURE_MAPS, lambda maps: resnet18(problem, maps)),
        (DYNAMOS_NF, lambda maps: dynamos_backbone(problem, maps)),
    ):
        if match := re.fullmatch(family.pattern, scale):
            return build(int(match[1]))
    resnets = f"or, for a ResNet-18, {MULTIPLES.examples}, {FEATURE_MAPS.examples}"
    raise unknown_scale(scale, f"{FULLY_CONNECTED.examples}, {resnets}, or, for Dynamos's backbone, {DYNAMOS}{more}")


def fully_connected(problem: ProblemShape, hidden: int) -> FullyConnected:
    """d -> H -> H -> m."""
    sizes = {
        "layer1": (hidden, problem.input_size),
        "layer2": (hidden, hidden),
        "layer3": (problem.num_classes, hidden),
    }
    return FullyConnected(
        layers={name: Layer(shape=shape, input_size=shape[1], first=name == "layer1") for name, shape in sizes.items()}
    )


def resnet18(problem: ProblemShape, maps: int) -> ResNet:
    """ResNet-18 with `maps` base feature maps, in the form for the images' size."""
    is_standard = max(problem.input_shape[1:]) > REDUCED_UP_TO
    layers = _residual_layers(problem, maps, num_stages=4, is_standard=is_standard)
    return ResNet(input_shape=problem.input_shape, layers=layers, is_standard=is_standard)


def dynamos_backbone(problem: ProblemShape, maps: int) -> ResNet:
    """Dynamos's backbone without gates, with `maps` maps in the first stage and twice as many in the second."""
    layers = _residual_layers(problem, maps, num_stages=2, is_standard=False)
    layers["head"] = dataclasses.replace(layers["head"], has_bias=True)
    return ResNet(input_shape=problem.input_shape, layers=layers, is_standard=False, initial="torch")


def _residual_layers(problem: ProblemShape, maps: int, *, num_stages: int, is_standard: bool) -> dict[str, Layer]:
    """The layers of a ResNet; every stage but the first halves the image's sides and has twice as many maps."""
    channels, height, width = problem.input_shape
    layers: dict[str, Layer] = {}

    def add(name: str, inputs: int, outputs: int, kernel: int, stride: int) -> None:
        nonlocal height, width
        input_size = inputs * height * width
        height, width = -(-height // stride), -(-width // stride)
        layers[name] = Layer(
            shape=(outputs, inputs, kernel, kernel),
            stride=stride,
            positions=height * width,
            input_size=input_size,
            first=name == "stem",
        )

    add("stem", channels, maps, 7 if is_standard else 3, 2 if is_standard else 1)
    if is_standard:
        height, width = -(-height // 2), -(-width // 2)
    inputs = maps
    for stage in range(num_stages):
        outputs, stride = maps * 2**stage, 1 if stage == 0 else 2
        for block in (1, 2):
            name, before = f"stage{stage + 1}.block{block}", (height, width)
            is_first = block == 1
            add(f"{name}.conv1", inputs, outputs, 3, stride if is_first else 1)
            add(f"{name}.conv2", outputs, outputs, 3, 1)
            if is_first and (stride > 1 or inputs != outputs):
                height, width = before
                add(f"{name}.shortcut", inputs, outputs, 1, stride)
            inputs = outputs
    layers["head"] = Layer(shape=(problem.num_classes, inputs), input_size=inputs)
    return layers


def linear_inputs(network: Network) -> int:
    """Input values of all layers but convolutions: held in addition if a method changes layers' inputs."""
    return sum(layer.input_size for layer in network.layers.values() if not layer.is_convolution)


def num_weights(network: Network) -> int:
    """Number of weights of all layers."""
    return sum(layer.num_weights for layer in network.layers.values())


def num_statistics(network: Network) -> int:
    """Number of running means and variances per task."""
    return 2 * sum(network.normalised.values())


def plain_multiply_adds(network: Network) -> int:
    """Multiply-adds of a training step per example: forward, weight gradients, input gradients except the image's."""
    return sum((2 if layer.first else 3) * layer.products for layer in network.layers.values())


def frozen_multiply_adds(network: Network) -> int:
    """The same if weights are frozen and each layer trains something at its input.

    A matrix needs only its input gradient. For a convolution, the gradient of the task's effective weights is computed.
    """
    return sum(
        ((2 if layer.first else 3) if layer.is_convolution else 2) * layer.products for layer in network.layers.values()
    )


def drawn_normal(network: Network, seed: int, std: Callable[[Layer], float]) -> BackboneSpec:
    """All weights, drawn from zero-mean Gaussians with each layer's standard deviation."""
    arrays = [
        ArraySpec(name=name, shape=layer.shape, distribution="normal", parameter=std(layer))
        for name, layer in network.layers.items()
    ]
    return BackboneSpec(seed=seed, arrays=tuple(arrays))


def glorot_std(layer: Layer) -> float:
    """Glorot and Bengio's standard deviation: the square root of 2 / (fan-in + fan-out)."""
    return math.sqrt(2 / (layer.fan_in + layer.num_outputs * math.prod(layer.shape[2:])))


def statistics_of(network: Network) -> dict[str, int]:
    """The number of channels of each running mean and variance, by name."""
    return {
        f"{name}{suffix}": channels
        for name, channels in network.normalised.items()
        for suffix in (RUNNING_MEAN, RUNNING_VARIANCE)
    }


def start_statistics(network: Network, surroundings: Surroundings, tasks: Sequence[int]) -> Tensors:
    """Running means of 0 and variances of 1 for every normalised layer, each [G, C]."""
    state: Tensors = {}
    for name, channels in network.normalised.items():
        mean_GC = torch.zeros(len(tasks), channels, device=surroundings.device, dtype=surroundings.dtype)
        state |= {f"{name}{RUNNING_MEAN}": mean_GC, f"{name}{RUNNING_VARIANCE}": torch.ones_like(mean_GC)}
    return state


def normalise(state: Tensors, *, training: bool, moved: Tensors | None) -> Norm:
    """Batch normalisation with the running statistics of a state, and its gains and shifts if it has any.

    Args:
        state: statistics as `<layer>.running_mean` and `.running_var`, `<layer>.gain` and `.shift`.
        training: whether to use the batch's statistics.
        moved: in training, receives the new running statistics by name.
    """

    def norm(name: str, input_BXHW: torch.Tensor) -> torch.Tensor:
        names = (f"{name}{RUNNING_MEAN}", f"{name}{RUNNING_VARIANCE}")
        statistics = (state[names[0]], state[names[1]])
        if training:  # torch updates them in place; copy them to leave the state unchanged
            statistics = (statistics[0].clone(), statistics[1].clone())
            if moved is not None:
                moved.update(zip(names, statistics, strict=True))
        affine = (state[f"{name}.gain"], state[f"{name}.shift"]) if f"{name}.gain" in state else None
        return normalisation.batch_norm(input_BXHW, statistics, training=training, affine=affine)

    return norm


def paper_training(scale: str, *, fully_connected_rate: float, resnet_rate: float) -> TrainingSpec:
    """The paper's training settings: RMSProp for FC_H on MNIST, Adam for ResNets.

    FC_H: 1000 updates. ResNets: 250 epochs of 20 batches.

    Args:
        scale: the scale, whose family decides.
        fully_connected_rate: the constant learning rate of FC_H.
        resnet_rate: the initial learning rate of a ResNet.
    """
    try:
        parse_scale(scale, FULLY_CONNECTED)
    except ScaleError:
        return TrainingSpec(
            learning_rate=resnet_rate, optimizer="adam", updates_per_task=5000, weight_decay=1e-4, schedule="cosine"
        )
    return TrainingSpec(learning_rate=fully_connected_rate)
