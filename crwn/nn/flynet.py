"""FlyNet's fixed encoder, modelled on the fly's mushroom body: sparse random sums, global inhibition, ReLU.

Source: CRWN (Hong & Pavlic, arXiv:2204.04297), FlyNet.

Every unit sums k of the image's pixels p, which are bytes. With x = f p - o the normalised pixels, E x = f E p - k o:

    h = relu(z - gamma mean(z)) = f relu(E p - gamma mean(E p) - (1 - gamma) k o / f)

E p is computed in integers: exactly, whatever the order of summation, and several times faster than in floating point.
The mean of E p over the units takes no pass over them: it is the product of p with the column sums of E, divided by N.

Shapes: G tasks, B examples per task, D input features, N hidden units.
"""

from __future__ import annotations

import torch

from crwn.nn.kernels import Kernel


class Encoder:
    """h / f with h = relu(z - gamma mean(z)) and z = E x, for normalised pixels x = f p - o.

    The result is left in units of f: multiplying [B, N] numbers by f costs more than passing f to the next layer.

    Args:
        encoder_ND: E, zeros and ones, with the same number of ones in every row.
        inhibition: gamma, the fraction of the units' mean that is subtracted from each unit.
        factor: f.
        offset: o.
        dtype: dtype of the result.
        kernel: computes the product with E.
    """

    def __init__(
        self,
        encoder_ND: torch.Tensor,
        *,
        inhibition: float,
        factor: float,
        offset: float,
        dtype: torch.dtype,
        kernel: Kernel,
    ) -> None:
        self._product = kernel.freeze_integers(encoder_ND)
        self._column_sums_D = encoder_ND.sum(dim=0, dtype=torch.float64)
        self._mean_factor = inhibition / len(encoder_ND)
        self._constant = (1 - inhibition) * encoder_ND[0].sum(dtype=torch.float64) * offset / factor
        self._dtype = dtype

    def __call__(self, bytes_GBD: torch.Tensor) -> torch.Tensor:
        """The units' activity.

        Args:
            bytes_GBD: pixels of each task's examples, as unsigned bytes.

        Returns:
            h / f: [G, B, N].
        """
        subtracted_GB = bytes_GBD.double() @ self._column_sums_D * self._mean_factor + self._constant
        sums_GBN = self._product(bytes_GBD.flatten(0, 1)).unflatten(0, bytes_GBD.shape[:2])
        sums_GBN = sums_GBN.to(torch.promote_types(self._dtype, torch.float32))
        activity_GBN: torch.Tensor = sums_GBN.sub_(subtracted_GB[:, :, None].to(sums_GBN.dtype)).relu_()
        return activity_GBN.to(self._dtype)
