"""Finding a task's mask in a superposition of all masks, by the gradient of the answers' entropy.

Source: SupSup (Wortsman et al. 2020, arXiv:2006.14769), section 3.3: the network with weights R * sum_t alpha_t M_t,
alpha uniform over the candidates, classifies a batch; the most likely task is the one whose coefficient lowers the
entropy H of the outputs fastest, with the largest -dH/dalpha_t. One-shot compares all tasks in one pass. Binary search
repeatedly drops the half of the candidates with the smaller values until one remains, in log2 T passes.

The search works for masks only. For contexts it is at chance: a superposition of contexts resembles no task's network.

Shapes: T tasks, K of them candidates, B images, m classes, N weights of a layer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch.nn import functional

from crwn.backbone import Backbone
from crwn.faults import InvalidError
from crwn.learner import tensors_on
from crwn.methods.networks import Network, parse_network
from crwn.methods.protocol import Tensors
from crwn.nn.masked import unpacked_bits
from crwn.nn.normalisation import batch_norm
from crwn.trial_spec import TrialSpec

Search = Literal["one-shot", "binary"]

MASK = ".mask"

MOST_UNPACKED = 2**26
"""The largest number of unpacked mask values of a layer that are kept between batches."""


def has_masks(own: Tensors, layers: Sequence[str]) -> bool:
    """Whether each task has a mask over every frozen array."""
    return bool(layers) and all(f"{layer}{MASK}" in own for layer in layers)


class Superposition:
    """All tasks' masks over one frozen network.

    Args:
        trial: one of the tasks' trials.
        drawn: the frozen weights.
        own: what tasks keep, including packed masks [T, bytes].

    Raises:
        ValueError: the tasks have no masks.
    """

    def __init__(self, trial: TrialSpec, drawn: Backbone, own: Tensors) -> None:
        if not has_masks(own, tuple(drawn.arrays)):
            raise InvalidError(
                "no-masks",
                f"by: expected a bank of masks to search in their superposition, given one of {trial.method.kind}; "
                "use 'entropy', which works for contexts too",
            )
        self._weights = tensors_on(drawn, torch.device("cpu"), torch.float32)
        self._masks = {name: own[f"{name}{MASK}"] for name in self._weights}
        self._num_tasks = len(next(iter(self._masks.values())))
        self._unpacked: Tensors = {}
        self._network: Network = parse_network(trial.scale, trial.benchmark.problem())
        self._normalisation = trial.benchmark.normalisation()

    def scores(self, bytes_BCHW: torch.Tensor, by: Search) -> torch.Tensor:
        """The score of each task for a batch [T]; the highest is the most likely.

        Args:
            bytes_BCHW: images of one task.
            by: `one-shot`: scores are -dH/dalpha. `binary`: the integer part counts the rounds that a task survives,
                the fraction is its rank among those dropped with it.
        """
        candidates = list(range(self._num_tasks))
        if by == "one-shot":
            return self._slopes(bytes_BCHW, candidates)
        scores_T, rounds = torch.zeros(len(candidates)), 0
        while len(candidates) > 1:
            order = self._slopes(bytes_BCHW, candidates).argsort().tolist()
            num_dropped = len(candidates) // 2
            for rank, number in enumerate(order[:num_dropped]):
                scores_T[candidates[number]] = rounds + rank / len(scores_T)
            candidates = sorted(candidates[number] for number in order[num_dropped:])
            rounds += 1
        scores_T[candidates[0]] = rounds
        return scores_T

    def _slopes(self, bytes_BCHW: torch.Tensor, tasks: Sequence[int]) -> torch.Tensor:
        """-dH/dalpha for these tasks, superposed with equal coefficients."""
        alpha_T = torch.zeros(self._num_tasks)
        alpha_T[list(tasks)] = 1 / len(tasks)
        superposed = {
            name: ((alpha_T @ self._marks(name)).view_as(weight) * weight).requires_grad_()
            for name, weight in self._weights.items()
        }
        with torch.enable_grad():
            shares_Bm = functional.log_softmax(self._logits(superposed, bytes_BCHW), dim=1)
            entropy = -(shares_Bm.exp() * shares_Bm).sum(dim=1).mean()
            gradients = torch.autograd.grad(entropy, list(superposed.values()))
        slopes_T = torch.zeros(self._num_tasks)
        for (name, weight), gradient in zip(self._weights.items(), gradients, strict=True):
            slopes_T -= self._marks(name) @ (gradient * weight).flatten()
        return slopes_T[list(tasks)]

    def _marks(self, name: str) -> torch.Tensor:
        """A layer's masks as zeros and ones: [T, N]."""
        if name not in self._unpacked:
            packed = self._masks[name]
            marks_TN = unpacked_bits(packed, math.prod(self._weights[name].shape)).float()
            if marks_TN.numel() > MOST_UNPACKED:
                return marks_TN
            self._unpacked[name] = marks_TN
        return self._unpacked[name]

    def _logits(self, weights: Tensors, bytes_BCHW: torch.Tensor) -> torch.Tensor:
        """The class scores [B, m] of a network with these weights; batch normalisation uses the batch's statistics."""

        def linears(names: Sequence[str], hidden_GBI: torch.Tensor) -> torch.Tensor:
            for number, name in enumerate(names, start=1):
                hidden_GBI = functional.linear(hidden_GBI, weights[name])
                hidden_GBI = hidden_GBI.relu() if number < len(names) else hidden_GBI
            return hidden_GBI

        norm: Callable[[str, torch.Tensor], torch.Tensor] = lambda _, x: batch_norm(x, None, training=True)  # noqa: E731
        pixels = self._normalisation(bytes_BCHW[None], torch.float32)
        found = self._network.forward(pixels, linears=linears, conv_weight=lambda name: weights[name][None], norm=norm)
        return found[0]
