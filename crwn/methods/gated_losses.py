"""Dynamos's losses for a forward pass of its network (`gated.py`), with a weight for each example.

Source: Varma, Arani & Zonooz 2023, arXiv:2301.00620, as in `models/dynamos_sgd.py` of
github.com/NeurAI-Lab/DynamicContinualLearning. For a batch

    L = mean of -log p(y|x) + w_r R + w_p P
    R = mean over examples and gated layers of -reward log p(gates), reward = -(keep_ratio - share kept)^2,
        times `wrong_factor` if x is misclassified
    P = (1 + distances within classes) / (1 + distances between classes), of policy logits of correctly classified x

and for examples from the buffer

    L' = alpha mean of (z(x') - z')^2 + alpha_p mean of (policy logits(x') - stored ones)^2
         + beta (mean of -log p(y'|x') + w_r R') + w_p P'

where z' are the stored scores. Log-probabilities are computed from logits; the authors' from rounded probabilities.

Shapes: B examples, N gates, m classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from crwn.lazy import LazyModule

if TYPE_CHECKING:
    import torch

    from crwn.methods.gated import Passed
    from crwn.nn import gating, losses
else:
    gating = LazyModule("crwn.nn.gating")
    losses = LazyModule("crwn.nn.losses")


@dataclass(frozen=True, slots=True, kw_only=True)
class GatedLosses:
    """L and L' with their settings.

    Attributes:
        alpha: weight of the squared distance to the stored scores.
        beta: weight of the cross-entropy and the policy loss of replayed examples.
        policy_alpha: weight of the squared distance to the stored policy logits.
        reward_weight: w_r, weight of the policy loss.
        prototype_weight: w_p, weight of the prototype loss.
        keep_ratio: the target share of a layer's open gates.
        wrong_factor: factor on the reward of a misclassified example.
    """

    alpha: float
    beta: float
    policy_alpha: float
    reward_weight: float
    prototype_weight: float
    keep_ratio: float
    wrong_factor: float

    def learned(
        self, passed: Passed, labels_B: torch.Tensor, weights_B: torch.Tensor, *, beta: float = 1.0
    ) -> torch.Tensor:
        """L, with every term but P multiplied by beta.

        Args:
            passed: the forward pass.
            labels_B: the labels.
            weights_B: weights of the examples, which sum to 1; 0 leaves one out.
            beta: the factor.
        """
        correct_B = passed.logits_Bm.argmax(dim=1) == labels_B
        rewards_BL = gating.rewards(
            passed.shares_BL, correct_B, keep_ratio=self.keep_ratio, wrong_factor=self.wrong_factor
        )
        entropies_B = losses.cross_entropies(passed.logits_Bm[None], labels_B[None])[0]
        policy = gating.policy_loss(passed.log_p_BL, rewards_BL, weights_B)
        prototype = gating.prototype_loss(passed.policy_BN, labels_B, correct_B & (weights_B > 0))
        loss = (entropies_B * weights_B).sum() + self.reward_weight * policy
        return beta * loss + self.prototype_weight * prototype

    def replayed(
        self,
        passed: Passed,
        labels_B: torch.Tensor,
        weights_B: torch.Tensor,
        *,
        logits_Bm: torch.Tensor,
        policy_BN: torch.Tensor,
    ) -> torch.Tensor:
        """L'.

        Args:
            passed: the forward pass.
            labels_B: the stored labels.
            weights_B: as in `learned`.
            logits_Bm: the stored scores.
            policy_BN: the stored policy logits.
        """
        scores_B = (passed.logits_Bm - logits_Bm).square().mean(dim=1)
        policies_B = (passed.policy_BN - policy_BN).square().mean(dim=1)
        loss = self.learned(passed, labels_B, weights_B, beta=self.beta)
        return loss + ((self.alpha * scores_B + self.policy_alpha * policies_B) * weights_B).sum()
