"""Measures an update of Dynamos against the same update in ordinary PyTorch: modules, autograd, torch.optim.

    CRWN_DATA=<folder with MNIST/raw> .venv/bin/python -m perf.gated

Ten images of sequential MNIST and ten replayed ones, each in its own pass, at 28 x 28 and 14 x 14, on one thread. The
engine's time covers whole updates, including batches and buffer, and comes from the times of a learning curve; the
plain version's excludes drawing batches and replayed images. The two alternate. Writes the table in README.md.

Shapes: B examples, N gates, L gated layers.
"""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable
from unittest import mock

import torch
from torch import nn
from torch.nn import functional

from crwn import backbone, groups
from crwn.benchmarks.sequential import SequentialSpec
from crwn.data import datasets
from crwn.methods.dynamos import DynamosSpec
from crwn.trial import run_trial
from crwn.trial_spec import TrialSpec
from perf.engine import machine, one_thread, replace_between

BATCH, CLASSES, ROUNDS = 10, 10, 3
UPDATES = 100
"""The engine's updates per round; the first half is not counted."""
PLAIN_UPDATES = 30
SPEC = DynamosSpec()
GOAL = 1.5


def convolution(inputs: int, outputs: int, stride: int = 1, kernel: int = 3) -> nn.Sequential:
    """A convolution and its batch normalisation."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=kernel // 2, bias=False), nn.BatchNorm2d(outputs)
    )


class Agent(nn.Module):
    """Policy logits [B, O] from a convolution's input."""

    def __init__(self, inputs: int, gates: int) -> None:
        super().__init__()
        self.conv = convolution(inputs, gates, kernel=1)
        self.squeeze = nn.Sequential(
            nn.Linear(gates, gates // 16), nn.ReLU(), nn.Linear(gates // 16, gates), nn.Sigmoid()
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """[B, I, H, W] to [B, O]."""
        mean_BO = self.conv(images).mean(dim=(2, 3))
        scaled: torch.Tensor = mean_BO * self.squeeze(mean_BO)
        return scaled


class Block(nn.Module):
    """A basic block whose convolutions are gated."""

    def __init__(self, inputs: int, outputs: int, stride: int, *, gated: bool) -> None:
        super().__init__()
        self.first, self.second = convolution(inputs, outputs, stride), convolution(outputs, outputs)
        self.shortcut = convolution(inputs, outputs, stride, kernel=1) if stride > 1 else nn.Identity()
        self.agents = nn.ModuleList([Agent(inputs, outputs), Agent(outputs, outputs)] if gated else [])

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, list[tuple[torch.Tensor, torch.Tensor]]]:
        """The block's output, and each gate with its policy logits."""
        drawn: list[tuple[torch.Tensor, torch.Tensor]] = []

        def gate(seen: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
            if not self.agents:
                return output
            policy = self.agents[len(drawn)](seen)
            drawn.append((torch.bernoulli(torch.sigmoid(policy.detach() / SPEC.temperature)), policy))
            return output * drawn[-1][0][:, :, None, None]

        inner = functional.relu(gate(images, self.first(images)))
        return functional.relu(gate(inner, self.second(inner) + self.shortcut(images))), drawn


class Network(nn.Module):
    """The network with its agents."""

    def __init__(self, maps: int = 32) -> None:
        super().__init__()
        self.stem = convolution(3, maps)
        sizes = [(maps, maps, 1), (maps, maps, 1), (maps, 2 * maps, 2), (2 * maps, 2 * maps, 1)]
        self.blocks = nn.ModuleList([Block(*size, gated=number > 1) for number, size in enumerate(sizes)])
        self.head = nn.Linear(2 * maps, CLASSES)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Class scores, policy logits [B, N], gates [B, N]."""
        images, gates = functional.relu(self.stem(images)), []
        for block in self.blocks:
            images, drawn = block(images)
            gates += drawn
        kept, policies = (torch.cat(parts, dim=1) for parts in zip(*gates, strict=True))
        return self.head(images.mean(dim=(2, 3))), policies, kept


def losses(
    scores: torch.Tensor, policies: torch.Tensor, gates: torch.Tensor, labels: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cross-entropy with the policy loss, and the prototype loss."""
    correct = scores.argmax(dim=1) == labels
    log_p = torch.distributions.Bernoulli(logits=policies / SPEC.temperature).log_prob(gates)
    shares = gates.view(len(gates), 4, -1).mean(dim=2)
    reward = -((SPEC.keep_ratio - shares) ** 2) * torch.where(correct, 1.0, SPEC.wrong_factor)[:, None]
    policy = -(reward * log_p.view(len(gates), 4, -1).sum(dim=2)).mean()
    loss = functional.cross_entropy(scores, labels) + SPEC.reward_weight * policy
    if correct.sum() < 3:
        return loss, torch.zeros(())
    chosen, kinds = policies[correct], labels[correct]
    distances = torch.cdist(chosen, chosen).square().triu(diagonal=1) / policies.shape[1]
    same = kinds[:, None] == kinds
    return loss, SPEC.prototype_weight * (1 + (distances * same).sum()) / (1 + (distances * ~same).sum())


def plain_update(side: int) -> Callable[[], None]:
    """An update of the modules."""
    torch.manual_seed(0)
    network = Network()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.07)
    pixels, old_pixels = torch.rand(2, BATCH, 3, side, side)
    labels, old_labels = torch.randint(0, 2, (2, BATCH))
    old_scores, old_policies = torch.randn(BATCH, CLASSES), torch.randn(BATCH, 256)

    def update() -> None:
        loss, prototype = losses(*network(pixels), labels)
        scores, policies, gates = network(old_pixels)
        again, again_prototype = losses(scores, policies, gates, old_labels)
        loss = loss + prototype + SPEC.beta * again + again_prototype
        loss = loss + SPEC.alpha * functional.mse_loss(scores, old_scores)
        loss = loss + SPEC.policy_alpha * functional.mse_loss(policies, old_policies)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return update


def plain_milliseconds(update: Callable[[], None]) -> float:
    """Milliseconds per update, averaged over several."""
    started = time.process_time()
    for _ in range(PLAIN_UPDATES):
        update()
    return 1000 * (time.process_time() - started) / PLAIN_UPDATES


def engine_milliseconds(side: int, dtype: str) -> float:
    """Milliseconds per update, over the second half of a trial."""
    training = dataclasses.replace(SPEC.training("dynamos"), updates_per_task=UPDATES, epochs_per_task=0, dtype=dtype)
    benchmark = SequentialSpec(channels=3, pool=28 // side, first=1)
    spec = TrialSpec(method=SPEC, benchmark=benchmark, scale="dynamos", seed=0, training=training)
    with mock.patch.object(groups, "time", mock.Mock(time=time.process_time)):
        curve = run_trial(spec, data=datasets(), backbones=backbone.draw).rows[0].curve
    return 1000 * (curve[-1].time - curve[0].time) / (curve[-1].step - curve[0].step)


def main() -> None:
    """Measure, write, print."""
    one_thread()
    lines = [
        f"{machine()}, torch {torch.__version__}, one thread, {time.strftime('%Y-%m-%d')}.",
        f"CPU milliseconds per update, medians of {ROUNDS} rounds.",
        "",
        "| images | plain, float32 | dtype | engine | times faster | goal |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for side in (28, 14):
        update = plain_update(side)
        plain_milliseconds(update)
        taken: dict[str, list[float]] = {"plain": [], "float32": [], "bfloat16": []}
        for _ in range(ROUNDS):
            for name, values in taken.items():
                values.append(plain_milliseconds(update) if name == "plain" else engine_milliseconds(side, name))
        plain, *ours = (statistics.median(values) for values in taken.values())
        for dtype, value in zip(("float32", "bfloat16"), ours, strict=True):
            goal = str(GOAL) if dtype == "float32" else ""
            lines.append(f"| {side} x {side} | {plain:.1f} | {dtype} | {value:.1f} | {plain / value:.2f} | {goal} |")
            print(lines[-1], flush=True)
    replace_between("gated.py", lines)


if __name__ == "__main__":
    main()
