"""Dynamos's network: a ResNet in whose later blocks agents gate the channels of every convolution, example by example.

Source: Varma, Arani & Zonooz 2023, arXiv:2301.00620, as in `backbone/GatedResNet.py` of
github.com/NeurAI-Lab/DynamicContinualLearning. An agent sees the convolution's input x:

    z = mean over positions of batch-norm(U x), with U a 1x1 convolution
    policy logit = z sigmoid(W2 relu(W1 z + b1) + b2), with a bottleneck a sixteenth as wide
    keep-probability = sigmoid(policy logit / temperature)

In training a gate is drawn with this probability; in tests it is 1 where the probability is at least 1/2, whatever else
is in the batch. The gate multiplies the convolution's normalised output; the second gate of a block also multiplies its
shortcut. Until an agent has seen a batch, its gates are open: its running means are still exactly 0.

Weights start from U(+-1/sqrt(fan_in)), as torch's layers by default; biases from 0 (theirs are drawn too).

Shapes: B examples, N gates of all layers, L gated layers, m classes; layers are [O outputs, I inputs], h in the
bottleneck; C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from crwn.lazy import LazyModule
from crwn.methods.networks import (
    DYNAMOS,
    DYNAMOS_NF,
    RUNNING_MEAN,
    RUNNING_VARIANCE,
    ResNet,
    normalise,
    parse_network,
)
from crwn.methods.plain import PlainNetwork
from crwn.methods.protocol import ScaleError, Surroundings, Tensors
from crwn.spec import ProblemShape

if TYPE_CHECKING:
    from collections.abc import Sequence

    import torch
    from torch.nn import functional

    from crwn.nn import gating, kernels
else:
    torch = LazyModule("torch")
    functional = LazyModule("torch.nn.functional")
    gating = LazyModule("crwn.nn.gating")
    kernels = LazyModule("crwn.nn.kernels")

BOTTLENECK = 16
"""How many times narrower an agent's hidden layer is."""
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
        """The shapes of its weights; its biases, gains and shifts are besides."""
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
        """The output of its convolution, and the same normalised."""
        return 2 * self.gates * self.positions


@dataclass(frozen=True, slots=True, kw_only=True)
class Passed:
    """A forward pass in training.

    Attributes:
        logits_Bm: class scores.
        policy_BN: the gates' policy logits.
        log_p_BL: the log-probability of each layer's gates together.
        shares_BL: the share of each layer's gates that are 1.
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

    def passed(self, state: Tensors, images_BX: torch.Tensor, uniforms_BN: torch.Tensor, moved: Tensors) -> Passed:
        """The forward pass of a batch of bytes in training, with gates that are drawn.

        Args:
            state: as `start` gives it.
            images_BX: bytes [B, ...].
            uniforms_BN: one number in [0, 1) per gate; a gate is 1 where it is below the keep-probability.
            moved: receives the new running statistics.
        """
        policies: list[torch.Tensor] = []
        gates: list[torch.Tensor] = []
        uniforms = uniforms_BN.split([agent.gates for agent in self._agents.values()], dim=1)

        def drawn(policy_BO: torch.Tensor) -> torch.Tensor:
            is_kept_BO: torch.Tensor = uniforms[len(gates)] < torch.sigmoid(policy_BO.detach() / self._temperature)
            keep_BO = is_kept_BO.to(policy_BO.dtype)
            policies.append(policy_BO)
            gates.append(keep_BO)
            return keep_BO

        logits_1Bm = self._scores(state, images_BX[None], lambda _, policy_BO: drawn(policy_BO), moved, training=True)
        log_p = [
            gating.log_probability(keep_BO, policy_BO / self._temperature).sum(dim=1)
            for keep_BO, policy_BO in zip(gates, policies, strict=True)
        ]
        return Passed(
            logits_Bm=logits_1Bm[0],
            policy_BN=torch.cat(policies, dim=1),
            log_p_BL=torch.stack(log_p, dim=1),
            shares_BL=torch.stack([keep_BO.mean(dim=1) for keep_BO in gates], dim=1),
        )

    def logits(
        self, state: Tensors, images: torch.Tensor, *, training: bool = False, moved: Tensors | None = None
    ) -> torch.Tensor:
        """Class scores [G, B, m] of bytes [G, B, ...], all lanes as one batch, with gates by threshold."""
        return self._scores(state, images, self._by_threshold(state), moved, training=training)

    def gates(self, state: Tensors, images_BX: torch.Tensor) -> Tensors:
        """The gates of bytes [B, ...] in tests, by the name of the gated convolution: [B, O] of zeros and ones."""
        found: Tensors = {}
        threshold = self._by_threshold(state)

        def noted(layer: str, policy_BO: torch.Tensor) -> torch.Tensor:
            found[layer] = threshold(layer, policy_BO)
            return found[layer]

        self._scores(state, images_BX[None], noted, None, training=False)
        return found

    def _by_threshold(self, state: Tensors) -> Callable[[str, torch.Tensor], torch.Tensor]:
        """Gates [B, O] by policy logits: 1 where the keep-probability is at least 1/2, or the agent is new."""

        def gates(layer: str, policy_BO: torch.Tensor) -> torch.Tensor:
            is_new = (state[f"{layer}.agent{RUNNING_MEAN}"] == 0).all()
            return ((policy_BO >= 0) | is_new).to(policy_BO.dtype)

        return gates

    def _scores(
        self,
        state: Tensors,
        images: torch.Tensor,
        gates: Callable[[str, torch.Tensor], torch.Tensor],
        moved: Tensors | None,
        *,
        training: bool,
    ) -> torch.Tensor:
        """The class scores [G, B, m] of bytes [G, B, ...], given the gates [X, O] of a layer by its policy logits."""
        surroundings = self._surroundings

        def gate(layer: str, input_XCHW: torch.Tensor, output_XCHW: torch.Tensor) -> torch.Tensor:
            if layer not in self._agents:
                return output_XCHW
            mean_XO = self._mean(state, f"{layer}.agent", input_XCHW, moved, training=training)
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
            norm=normalise(state, training=training, moved=moved),
            gate=gate,
        )
        return logits_1Xm.view(*images.shape[:2], -1)

    def _mean(
        self, state: Tensors, agent: str, input_XCHW: torch.Tensor, moved: Tensors | None, *, training: bool
    ) -> torch.Tensor:
        """z [X, O]. In tests, where the statistics are constants, the mean of the input is enough."""
        if training:
            output_XOHW = functional.conv2d(input_XCHW, kernels.cast(state[f"{agent}.weight"], input_XCHW.dtype))
            norm = normalise(state, training=True, moved=moved)
            return kernels.cast(norm(agent, output_XOHW).mean(dim=(2, 3)), self._surroundings.dtype)
        mean_XI = kernels.cast(input_XCHW.mean(dim=(2, 3)), self._surroundings.dtype)
        mean_XO = functional.linear(mean_XI, state[f"{agent}.weight"].flatten(1))
        return normalise(state, training=False, moved=None)(agent, mean_XO[:, :, None, None])[:, :, 0, 0]

    @staticmethod
    def _policy(state: Mapping[str, torch.Tensor], agent: str, mean_XO: torch.Tensor) -> torch.Tensor:
        """The policy logits [X, O]."""
        hidden_Xh = functional.linear(mean_XO, state[f"{agent}.down.weight"], state[f"{agent}.down.bias"]).relu()
        scale_XO = functional.linear(hidden_Xh, state[f"{agent}.up.weight"], state[f"{agent}.up.bias"]).sigmoid()
        return mean_XO * scale_XO
