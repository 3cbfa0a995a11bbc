"""Dynamos's network: a ResNet whose later blocks have agents that gate each convolution's channels for each example.

Source: Varma, Arani & Zonooz 2023, arXiv:2301.00620, as in `backbone/GatedResNet.py` of
github.com/NeurAI-Lab/DynamicContinualLearning. An agent sees the convolution's input x:

    z = mean over positions of batch-norm(U x), with U a 1x1 convolution
    policy logit = z sigmoid(W2 relu(W1 z + b1) + b2), with a bottleneck a sixteenth as wide
    keep-probability = sigmoid(policy logit / temperature)

In training, a gate is drawn with this probability; in tests, it is 1 if the probability is at least 1/2, whatever else
is in the batch. The gate multiplies the convolution's normalised output; the second gate of a block also multiplies its
shortcut. An agent that has seen no batch yet, whose running means are still exactly 0, leaves its gates open.

Weights start from U(+-1/sqrt(fan_in)), torch's default; biases start at 0 (the authors draw them too).

Shapes: B examples, N gates of all layers, L gated layers, m classes; layers are [O outputs, I inputs], h in the
bottleneck; C channels, H height, W width.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from crwn.lazy import LazyModule
from crwn.methods.networks import (
    DYNAMOS,
    DYNAMOS_NF,
    RUNNING_MEAN,
    RUNNING_VARIANCE,
    Norm,
    ResNet,
    normalise,
    parse_network,
)
from crwn.methods.plain import PlainNetwork, plain_blueprint
from crwn.methods.protocol import ScaleError, Surroundings, Tensors
from crwn.spec import Blueprint, ProblemShape

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch
    from torch.nn import functional

    from crwn.nn import gating, kernels, normalisation
else:
    torch = LazyModule("torch")
    functional = LazyModule("torch.nn.functional")
    gating = LazyModule("crwn.nn.gating")
    kernels = LazyModule("crwn.nn.kernels")
    normalisation = LazyModule("crwn.nn.normalisation")

Mean: TypeAlias = "Callable[[str, torch.Tensor], torch.Tensor]"
"""From the name of an agent and its input [X, I, H, W] to z [X, O]."""

BOTTLENECK = 16
"""The factor by which an agent's hidden layer is narrower."""
GATED_FROM = "stage2"
"""The first stage whose blocks are gated."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Agent:
    """An agent's sizes.

    Attributes:
        inputs: channels of its convolution's input.
        gates: channels of the output, one gate each.
        positions: positions of the input.
    """

    inputs: int
    gates: int
    positions: int

    @property
    def hidden(self) -> int:
        """Width of the bottleneck."""
        return max(1, self.gates // BOTTLENECK)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shapes of its weights, not counting biases, gains and shifts."""
        return {
            "agent": (self.gates, self.inputs, 1, 1),
            "agent.down": (self.hidden, self.gates),
            "agent.up": (self.gates, self.hidden),
        }

    @property
    def num_trained(self) -> int:
        """Its weights, and two biases, a gain and a shift."""
        return self.gates * (self.inputs + 2 * self.hidden) + (self.hidden + self.gates) + 2 * self.gates

    @property
    def products(self) -> int:
        """Multiply-adds of its forward pass per example."""
        return self.gates * (self.inputs * self.positions + 2 * self.hidden)

    @property
    def activations(self) -> int:
        """The numbers in its convolution's output, before and after normalisation."""
        return 2 * self.gates * self.positions


@dataclass(frozen=True, slots=True, kw_only=True)
class Passed:
    """A forward pass in training.

    Attributes:
        logits_Bm: class scores.
        policy_BN: the gates' policy logits.
        log_p_BL: the joint log-probability of each layer's gates.
        shares_BL: the share of each layer's gates that are open.
    """

    logits_Bm: torch.Tensor
    policy_BN: torch.Tensor
    log_p_BL: torch.Tensor
    shares_BL: torch.Tensor


def parse_gated(scale: str, problem: ProblemShape) -> ResNet:
    """The network of a scale, without its agents.

    Raises:
        ScaleError: it is not one of Dynamos's.
    """
    if scale != DYNAMOS and not DYNAMOS_NF.matches(scale):
        raise ScaleError(
            "unknown-scale", f"scale: expected one such as {DYNAMOS} or {DYNAMOS_NF.examples}, given {scale!r}"
        )
    network = parse_network(scale, problem)
    assert isinstance(network, ResNet)
    return network


def agents_of(network: ResNet) -> dict[str, Agent]:
    """The agents by the name of the convolution that they gate, in the order of the forward pass."""
    return {
        name: Agent(inputs=layer.shape[1], gates=layer.num_outputs, positions=layer.input_size // layer.shape[1])
        for name, layer in network.layers.items()
        if name.startswith(GATED_FROM) and not name.endswith("shortcut")
    }


def gated_blueprint(
    scale: str, problem: ProblemShape, seed: int, *, examples_kept: int, examples_replayed: int
) -> Blueprint:
    """The counts of the network with its agents and a buffer that also stores scores and policy logits.

    Args:
        scale: the scale.
        problem: the benchmark's sizes.
        seed: the trial's seed.
        examples_kept: capacity of the buffer.
        examples_replayed: examples replayed per update.

    Raises:
        ScaleError: the scale is not one of Dynamos's.
    """
    agents = agents_of(parse_gated(scale, problem)).values()
    trained, gates = sum(agent.num_trained for agent in agents), sum(agent.gates for agent in agents)
    ungated = plain_blueprint(
        scale, problem, seed, biases=True, examples_kept=examples_kept, examples_replayed=examples_replayed
    )
    return dataclasses.replace(
        ungated,
        params_per_task=ungated.params_per_task + trained,
        trained_per_task=ungated.trained_per_task + trained,
        stored_shared=ungated.stored_shared + trained + 2 * gates,
        stored_memory=ungated.examples_kept * (problem.num_classes + gates),
        multiply_adds=ungated.multiply_adds + 3 * sum(agent.products for agent in agents),
        activations=ungated.activations + sum(agent.activations for agent in agents),
    )


class GatedNetwork:
    """The network with its agents.

    Args:
        surroundings: what the method is built from.
        temperature: of the keep-probability.

    Attributes:
        ungated: the same network without gates.
        num_gates: N.
    """

    def __init__(self, surroundings: Surroundings, *, temperature: float) -> None:
        self._surroundings = surroundings
        self._network = parse_gated(surroundings.scale, surroundings.problem)
        self._agents = agents_of(self._network)
        self._temperature = temperature
        self.ungated = PlainNetwork(surroundings, biases=True)
        self.num_gates = sum(agent.gates for agent in self._agents.values())

    def start(self) -> Tensors:
        """The initial state: that of the network without gates, and each agent's weights, biases and statistics."""
        surroundings, state = self._surroundings, self.ungated.start()
        for layer, agent in self._agents.items():
            trained: Tensors = {}
            for part, shape in agent.shapes.items():
                name, bound = f"{layer}.{part}", shape[1] ** -0.5
                trained[f"{name}.weight"] = surroundings.draw([0], f"{name}.weight", shape, -bound, bound)[0].clone()
            zeros_O, zeros_h = (
                torch.zeros(size, device=surroundings.device, dtype=surroundings.dtype)
                for size in (agent.gates, agent.hidden)
            )
            name = f"{layer}.agent"
            trained |= {f"{name}.down.bias": zeros_h, f"{name}.up.bias": zeros_O}
            trained |= {f"{name}.gain": torch.ones_like(zeros_O), f"{name}.shift": torch.zeros_like(zeros_O)}
            state |= {key: tensor.requires_grad_() for key, tensor in trained.items()}
            state |= {f"{name}{RUNNING_MEAN}": torch.zeros_like(zeros_O)}
            state |= {f"{name}{RUNNING_VARIANCE}": torch.ones_like(zeros_O)}
        return state

    def passed(
        self,
        state: Tensors,
        batches: Sequence[torch.Tensor],
        uniforms: Sequence[torch.Tensor],
        moved: Sequence[Tensors],
    ) -> list[Passed]:
        """The forward pass of batches in training, with gates drawn at random.

        The batches go through the convolutions together; each is normalised with its own statistics.

        Args:
            state: as returned by `start`.
            batches: bytes [B, ...] each.
            uniforms: one number in [0, 1) per example and gate [B, N]; a gate is 1 where it is below the
                keep-probability.
            moved: for each batch, receives the running statistics after it; the next batch continues from them.
        """
        policies: list[torch.Tensor] = []
        gates: list[torch.Tensor] = []
        sizes = [len(images_BX) for images_BX in batches]
        drawn_XN = torch.cat(list(uniforms)).split([agent.gates for agent in self._agents.values()], dim=1)

        def drawn(policy_XO: torch.Tensor) -> torch.Tensor:
            is_kept_XO: torch.Tensor = drawn_XN[len(gates)] < torch.sigmoid(policy_XO.detach() / self._temperature)
            keep_XO = is_kept_XO.to(policy_XO.dtype)
            policies.append(policy_XO)
            gates.append(keep_XO)
            return keep_XO

        norm, mean = self._in_training(state, sizes, moved)
        images = torch.cat(list(batches))[None]
        logits_1Xm = self._scores(state, images, lambda _, policy_XO: drawn(policy_XO), norm=norm, mean=mean)
        policy_XN = torch.cat(policies, dim=1)
        log_p_XN = gating.log_probability(torch.cat(gates, dim=1), policy_XN / self._temperature)
        log_p_XL = torch.stack([part.sum(dim=1) for part in log_p_XN.split([g.shape[1] for g in gates], dim=1)], dim=1)
        shares_XL = torch.stack([keep_XO.mean(dim=1) for keep_XO in gates], dim=1)
        parts = (tensor.split(sizes) for tensor in (logits_1Xm[0], policy_XN, log_p_XL, shares_XL))
        return [
            Passed(logits_Bm=logits_Bm, policy_BN=policy_BN, log_p_BL=log_p_BL, shares_BL=shares_BL)
            for logits_Bm, policy_BN, log_p_BL, shares_BL in zip(*parts, strict=True)
        ]

    def logits(
        self, state: Tensors, images: torch.Tensor, *, training: bool = False, moved: Tensors | None = None
    ) -> torch.Tensor:
        """Class scores [G, B, m] of bytes [G, B, ...], all lanes as one batch, with gates by threshold."""
        norm, mean = self._in_tests(state)
        if training:
            norm, mean = self._in_training(state, [len(images) * images.shape[1]], [{} if moved is None else moved])
        return self._scores(state, images, self._by_threshold(state), norm=norm, mean=mean)

    def gates(self, state: Tensors, images_BX: torch.Tensor) -> Tensors:
        """The gates of bytes [B, ...] in tests, by the name of their convolution: [B, O], zeros and ones."""
        found: Tensors = {}
        threshold = self._by_threshold(state)

        def noted(layer: str, policy_BO: torch.Tensor) -> torch.Tensor:
            found[layer] = threshold(layer, policy_BO)
            return found[layer]

        norm, mean = self._in_tests(state)
        self._scores(state, images_BX[None], noted, norm=norm, mean=mean)
        return found

    def _by_threshold(self, state: Tensors) -> Callable[[str, torch.Tensor], torch.Tensor]:
        """Gates [B, O] from policy logits: 1 if the keep-probability is at least 1/2 or the agent has seen no batch."""

        def gates(layer: str, policy_BO: torch.Tensor) -> torch.Tensor:
            is_new = (state[f"{layer}.agent{RUNNING_MEAN}"] == 0).all()
            return ((policy_BO >= 0) | is_new).to(policy_BO.dtype)

        return gates

    def _scores(
        self,
        state: Tensors,
        images: torch.Tensor,
        gates: Callable[[str, torch.Tensor], torch.Tensor],
        *,
        norm: Norm,
        mean: Mean,
    ) -> torch.Tensor:
        """The class scores [G, B, m] of bytes [G, B, ...], given how a layer's policy logits set its gates [X, O]."""
        surroundings = self._surroundings

        def gate(layer: str, input_XCHW: torch.Tensor, output_XCHW: torch.Tensor) -> torch.Tensor:
            if layer not in self._agents:
                return output_XCHW
            mean_XO = mean(f"{layer}.agent", input_XCHW)
            gates_XO = gates(layer, self._policy(state, f"{layer}.agent", mean_XO))
            return output_XCHW * kernels.cast(gates_XO, output_XCHW.dtype)[:, :, None, None]

        def linears(names: Sequence[str], input_GBI: torch.Tensor) -> torch.Tensor:
            (name,) = names
            weight_mI, bias_m = (kernels.cast(state[f"{name}.{part}"], input_GBI.dtype) for part in ("weight", "bias"))
            return functional.linear(input_GBI[0], weight_mI, bias_m)[None]

        logits_1Xm = self._network.forward(
            surroundings.normalised(images.flatten(0, 1)[None]),
            linears=linears,
            conv_weight=lambda name: state[f"{name}.weight"][None],
            norm=norm,
            gate=gate,
        )
        return logits_1Xm.view(*images.shape[:2], -1)

    def _in_tests(self, state: Tensors) -> tuple[Norm, Mean]:
        """Batch normalisation and z [X, O] with the constant running statistics, so that z follows from means."""
        norm = normalise(state, training=False, moved=None)

        def mean(agent: str, input_XCHW: torch.Tensor) -> torch.Tensor:
            mean_XI = kernels.cast(input_XCHW.mean(dim=(2, 3)), self._surroundings.dtype)
            mean_XO = functional.linear(mean_XI, state[f"{agent}.weight"].flatten(1))
            return norm(agent, mean_XO[:, :, None, None])[:, :, 0, 0]

        return norm, mean

    def _in_training(self, state: Tensors, sizes: Sequence[int], moved: Sequence[Tensors]) -> tuple[Norm, Mean]:
        """The same with each batch's own statistics, which also update the running ones, batch by batch."""

        def norm(name: str, input_XCHW: torch.Tensor) -> torch.Tensor:
            names = (f"{name}{RUNNING_MEAN}", f"{name}{RUNNING_VARIANCE}")
            affine = (state[f"{name}.gain"], state[f"{name}.shift"])
            output_XCHW, found = normalisation.in_parts(
                input_XCHW, (state[names[0]], state[names[1]]), sizes=sizes, affine=affine
            )
            for now, statistics in zip(moved, found, strict=True):
                now.update(zip(names, statistics, strict=True))
            return output_XCHW

        def mean(agent: str, input_XCHW: torch.Tensor) -> torch.Tensor:
            mean_XO, mean_PO, variance_PO = gating.normalised_means(
                kernels.cast(input_XCHW, self._surroundings.dtype),
                state[f"{agent}.weight"].flatten(1),
                (state[f"{agent}.gain"], state[f"{agent}.shift"]),
                sizes,
            )
            before: Mapping[str, torch.Tensor] = state
            for now, size, mean_O, variance_O in zip(moved, sizes, mean_PO, variance_PO, strict=True):
                num_values = size * input_XCHW[0, 0].numel()
                unbiased_O = variance_O * (num_values / max(1, num_values - 1))  # as torch keeps it
                for part, value_O in ((RUNNING_MEAN, mean_O), (RUNNING_VARIANCE, unbiased_O)):
                    name = f"{agent}{part}"
                    now[name] = torch.lerp(before[name], value_O.detach(), normalisation.MOMENTUM)
                before = now
            return mean_XO

        return norm, mean

    @staticmethod
    def _policy(state: Mapping[str, torch.Tensor], agent: str, mean_XO: torch.Tensor) -> torch.Tensor:
        """The policy logits [X, O]."""
        hidden_Xh = functional.linear(mean_XO, state[f"{agent}.down.weight"], state[f"{agent}.down.bias"]).relu()
        scale_XO = functional.linear(hidden_Xh, state[f"{agent}.up.weight"], state[f"{agent}.up.bias"]).sigmoid()
        return mean_XO * scale_XO
