"""Batch normalisation of batches that went through a convolution together."""

from __future__ import annotations

import torch
from torch.nn import functional

from crwn.nn import normalisation


def test_parts_are_normalised_on_their_own() -> None:
    """Values, running statistics and gradients are those of one call for each batch, one after another."""
    draw = torch.Generator().manual_seed(5)
    images, given = torch.randn(2, 9, 4, 3, 5, generator=draw).contiguous()
    images = images.contiguous(memory_format=torch.channels_last).requires_grad_()
    gain, shift = (torch.randn(4, generator=draw).requires_grad_() for _ in range(2))
    start = (torch.zeros(4), torch.ones(4))
    for sizes in ([9], [4, 5]):
        found, moved = normalisation.in_parts(images, start, sizes=sizes, affine=(gain, shift))
        mean, variance = (tensor.clone() for tensor in start)
        parts = []
        for part, (own_mean, own_variance) in zip(images.split(sizes), moved, strict=True):
            parts.append(functional.batch_norm(part, mean, variance, gain, shift, training=True))
            assert torch.equal(own_mean, mean)
            assert torch.equal(own_variance, variance)
        expected = torch.cat(parts)
        assert torch.equal(found, expected)
        ours, theirs = (torch.autograd.grad(values, [images, gain, shift], given) for values in (found, expected))
        for one, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
    assert torch.equal(start[0], torch.zeros(4))
