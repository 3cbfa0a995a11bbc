"""The losses of gates, against sums over all masks and numbers worked out by hand."""

from __future__ import annotations

import itertools

import pytest
import torch

from crwn.nn import gating

MASKS = torch.tensor(list(itertools.product([0.0, 1.0], repeat=4)), dtype=torch.float64)
"""All settings of four gates: two of each of two layers."""


def probability(mask: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    """The product over gates of p or 1 - p, plainly."""
    p = 1 / (1 + torch.exp(-logits))
    return torch.where(mask == 1, p, 1 - p).prod(dim=-1)


@pytest.mark.parametrize("wrong_factor", [1.0, 500.0])
def test_the_policys_gradient_is_that_of_the_expected_reward(wrong_factor: float) -> None:
    """The mean of the loss's gradients over all 16 masks, each by its probability, is that of minus the expectation.

    The expected reward is a sum over masks of probability times reward, which autograd derives without REINFORCE. A
    mask with its first gate closed makes the example wrong, so that the reward's factor varies with the mask.
    """
    logits = torch.tensor([0.3, -1.2, 2.0, 0.1], dtype=torch.float64, requires_grad=True)
    shares = MASKS.unflatten(1, (2, 2)).mean(dim=2)
    correct = MASKS[:, 0] == 1
    rewards = gating.rewards(shares, correct, keep_ratio=0.7, wrong_factor=wrong_factor)
    by_hand = torch.stack([-((0.7 - shares[:, layer]) ** 2) for layer in range(2)], dim=1)
    assert torch.equal(rewards, by_hand * torch.where(correct, 1.0, wrong_factor)[:, None])

    # A layer's reward goes with its own gates' log-probability; its expectation given the first layer's gates is exact
    # for the second, and the first's gates move the second's reward only by the factor, which REINFORCE here ignores.
    expected = torch.zeros(4, dtype=torch.float64)
    for layer, gates in enumerate((slice(0, 2), slice(2, 4))):
        others = torch.cat([logits[: gates.start], logits[gates.stop :]]).detach()
        masks_of_others = torch.cat([MASKS[:, : gates.start], MASKS[:, gates.stop :]], dim=1)
        chance = probability(MASKS[:, gates], logits[gates]) * probability(masks_of_others, others)
        loss = -(chance * rewards[:, layer]).sum() / 2  # the mean over two layers
        expected += torch.autograd.grad(loss, logits)[0]

    total = torch.zeros(4, dtype=torch.float64)
    for mask, reward in zip(MASKS, rewards, strict=True):
        log_p = gating.log_probability(mask[None], logits[None]).unflatten(1, (2, 2)).sum(dim=2)
        loss = gating.policy_loss(log_p, reward[None], torch.ones(1, dtype=torch.float64))
        total += probability(mask, logits.detach()) * torch.autograd.grad(loss, logits)[0]
    torch.testing.assert_close(total, expected, rtol=1e-10, atol=1e-10)
    assert float(expected.abs().min()) > 1e-3


def test_the_policy_loss_is_a_mean_over_examples_and_layers() -> None:
    """Worked out by hand: log 1/2 for each of two gates; an example of weight 0 has no effect."""
    log_p = torch.log(torch.tensor([[0.25, 0.5], [0.5, 0.5], [1e-9, 1.0]], dtype=torch.float64))
    rewards = torch.tensor([[-1.0, -2.0], [-4.0, 0.0], [-9.0, -9.0]], dtype=torch.float64)
    weights = torch.tensor([0.5, 0.5, 0.0], dtype=torch.float64)
    log_2 = torch.log(torch.tensor(2.0, dtype=torch.float64))
    # (2 log 2 * -1 + log 2 * -2 + log 2 * -4 + 0) / 4
    assert float(gating.policy_loss(log_p, rewards, weights)) == pytest.approx(float(-8 * log_2 / 4), abs=1e-12)


def test_the_reward_by_hand() -> None:
    """The squared distance to the ratio, times the factor where the answer is wrong, which is a punishment too."""
    shares = torch.tensor([[0.5, 1.0], [0.5, 0.0], [0.7, 0.7]], dtype=torch.float64)
    correct = torch.tensor([True, False, False])
    found = gating.rewards(shares, correct, keep_ratio=0.7, wrong_factor=200.0)
    expected = torch.tensor([[-0.04, -0.09], [-8.0, -98.0], [0.0, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


ONE, OTHER, THIRD, FOURTH = [0.0, 0.0], [2.0, 0.0], [0.0, 4.0], [2.0, 4.0]


@pytest.mark.parametrize(
    ("logits", "labels", "correct", "expected"),
    [
        ([ONE], [0], [True], 0.0),
        ([ONE, OTHER], [0, 1], [True, True], 0.0),
        # Squared distances 4 and 4 + 16 = 20, 16; all over two gates. Within 16/2; between (4 + 20)/2.
        ([ONE, OTHER, THIRD], [0, 1, 0], [True] * 3, (1 + 8) / (1 + 12)),
        # Pairs 12: 4, 13: 16, 14: 20, 23: 20, 24: 16, 34: 4. Within (16 + 16)/2, between (4 + 20 + 20 + 4)/2.
        ([ONE, OTHER, THIRD, FOURTH], [0, 1, 0, 1], [True] * 4, (1 + 16) / (1 + 24)),
        # The second is wrong: within 16/2, between (20 + 4)/2.
        ([ONE, OTHER, THIRD, FOURTH], [0, 1, 0, 1], [True, False, True, True], (1 + 8) / (1 + 12)),
        # One class: nothing is between.
        ([ONE, OTHER, THIRD, FOURTH], [3] * 4, [True] * 4, 1 + 80 / 2),
        ([ONE, OTHER, THIRD, FOURTH], [0, 1, 0, 1], [True, True, False, False], 0.0),
        ([ONE] * 4, [0, 1, 2, 3], [True] * 4, 1.0),
    ],
)
def test_the_prototype_loss_by_hand(
    logits: list[list[float]], labels: list[int], correct: list[bool], expected: float
) -> None:
    """Of 1, 2, 3 and 4 examples, some wrong, of one class and of many; below three it is 0 and so is its gradient."""
    logits_BN = torch.tensor(logits, dtype=torch.float64, requires_grad=True)
    loss = gating.prototype_loss(logits_BN, torch.tensor(labels), torch.tensor(correct))
    assert float(loss.detach()) == pytest.approx(expected, abs=1e-12)
    (gradient,) = torch.autograd.grad(loss, logits_BN)
    assert bool(gradient.isfinite().all())
    assert bool(gradient.any()) == (expected not in (0.0, 1.0))


def test_means_after_normalisation_are_those_of_a_convolution() -> None:
    """Values, statistics and gradients of torch's 1x1 convolution and batch normalisation, batch by batch."""
    draw = torch.Generator().manual_seed(3)
    images = torch.randn(7, 4, 3, 5, generator=draw, dtype=torch.float64)
    images = images.contiguous(memory_format=torch.channels_last).requires_grad_()
    weight, gain, shift = (
        torch.randn(*shape, generator=draw, dtype=torch.float64).requires_grad_() for shape in ((6, 4), (6,), (6,))
    )
    given = torch.randn(7, 6, generator=draw, dtype=torch.float64)
    for sizes in ([7], [4, 3]):
        found, means, variances = gating.normalised_means(images, weight, (gain, shift), sizes)
        outputs = torch.conv2d(images, weight[:, :, None, None]).split(sizes)
        parts = [torch.batch_norm(part, gain, shift, None, None, True, 0.1, 1e-5, False) for part in outputs]
        expected = torch.cat(parts).mean(dim=(2, 3))
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(means, torch.stack([part.mean(dim=(0, 2, 3)) for part in outputs]))
        biased = [part.var(dim=(0, 2, 3), correction=0) for part in outputs]
        torch.testing.assert_close(variances, torch.stack(biased))
        ours, theirs = (torch.autograd.grad(z, [images, weight, gain, shift], given) for z in (found, expected))
        for one, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-11)
