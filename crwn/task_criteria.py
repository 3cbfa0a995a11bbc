"""Criteria for task inference: scores of a bank's tasks for images whose task is unknown.

Every task's network predicts, and the task with the most certain predictions is chosen (SupSup, Wortsman et al. 2020,
arXiv:2006.14769, uses the lowest entropy). A batch is of one task, so its scores are means over its images. The
baseline uses no network: the task whose mean training image is nearest to the batch's mean image.

Shapes: T tasks, B images, m classes, d values per image, K groups of images, X values of an image.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast

import torch
from torch.nn import functional

from crwn.faults import InvalidError

if TYPE_CHECKING:
    from crwn.context_parts import ContextParts
    from crwn.superposition import Search

Criterion: TypeAlias = Literal["entropy", "margin", "mean-image", "one-shot", "binary"]


def certainty(logits_TBm: torch.Tensor) -> torch.Tensor:
    """Minus the entropy of the class probabilities, in nats: [T, B]."""
    shares_TBm = functional.log_softmax(logits_TBm, dim=2)
    return (shares_TBm.exp() * shares_TBm).sum(dim=2)


def margin(logits_TBm: torch.Tensor) -> torch.Tensor:
    """The highest class probability minus the second highest: [T, B]."""
    if logits_TBm.shape[2] < 2:
        return torch.zeros(logits_TBm.shape[:2])
    highest_TB2 = logits_TBm.softmax(dim=2).topk(2, dim=2).values
    return highest_TB2[..., 0] - highest_TB2[..., 1]


BY_ANSWERS: Mapping[str, Callable[[torch.Tensor], torch.Tensor]] = MappingProxyType(
    {"entropy": certainty, "margin": margin}
)
"""Each task's score for single images, from class scores [T, B, m]: [T, B]; higher is more likely."""


def nearness(batches_Kd: torch.Tensor, means_Td: torch.Tensor) -> torch.Tensor:
    """Minus the mean squared distance, in grey levels, between mean images of batches and of tasks: [K, T]."""
    batches_Kd, means_Td = batches_Kd.double(), means_Td.double()
    squares_KT = batches_Kd.square().sum(dim=1)[:, None] + means_Td.square().sum(dim=1)
    return -((squares_KT - 2 * batches_Kd @ means_Td.T) / batches_Kd.shape[1]).float()


def by_group(values_BX: torch.Tensor, groups_B: torch.Tensor, num_groups: int) -> torch.Tensor:
    """Means over each group's images: [K, X]."""
    member_KB = functional.one_hot(groups_B, num_groups).T.to(torch.float64)
    sums_KX = member_KB @ values_BX.to(torch.float64)
    return (sums_KX / member_KB.sum(dim=1, keepdim=True)).float()


def infer(
    bank: ContextParts,
    bytes_BCHW: torch.Tensor,
    by: Criterion,
    groups: Any,
    *,
    answers: Callable[[torch.Tensor], torch.Tensor],
) -> torch.Tensor:
    """See `ContextBank.infer_task`.

    Args:
        bank: a bank whose tasks are told.
        bytes_BCHW: the images.
        by: the criterion.
        groups: the group of each image; None: all are of one task.
        answers: computes the class scores [T, B, m] of images under each task.
    """
    if by != "mean-image" and not bank.tells_tasks_apart:
        kind = bank.any_trial.method.kind
        raise InvalidError("one-network", f"by: expected 'mean-image' of {kind}, whose tasks share all, given {by!r}")
    groups_B, num_groups = _groups(groups, len(bytes_BCHW))
    if by in BY_ANSWERS:
        scores_KT = by_group(BY_ANSWERS[by](answers(bytes_BCHW)).T, groups_B, num_groups)
    elif by == "mean-image":
        if bank.mean_images is None:
            raise InvalidError(
                "no-mean-images", "by: expected a bank with mean images, given one without; see `with_mean_images`"
            )
        scores_KT = nearness(by_group(bytes_BCHW.flatten(1), groups_B, num_groups), bank.mean_images)
    else:
        parts = [bytes_BCHW[groups_B == group] for group in range(num_groups)]
        scores_KT = torch.stack([bank.superposition.scores(part, cast("Search", by)) for part in parts])
    return scores_KT if groups is not None else scores_KT[0]


def _groups(given: Any, num_images: int) -> tuple[torch.Tensor, int]:
    """The group of each image, and the number of groups; a single one if none are given."""
    if num_images == 0:
        raise InvalidError("no-images", "images: expected at least one, given none")
    if given is None:
        return torch.zeros(num_images, dtype=torch.int64), 1
    groups_B = torch.as_tensor(given)
    if groups_B.is_floating_point() or groups_B.dtype == torch.bool or tuple(groups_B.shape) != (num_images,):
        raise InvalidError(
            "not-a-group-per-image",
            f"groups: expected a whole number for each of the {num_images} images, given {groups_B.dtype} "
            f"{list(groups_B.shape)}",
        )
    num_groups = int(groups_B.max()) + 1
    if int(groups_B.min()) < 0 or num_groups > num_images or len(groups_B.unique()) != num_groups:
        message = "groups: expected each number from 0 to the highest, given others"
        raise InvalidError("not-a-group-per-image", message)
    return groups_B.long(), num_groups
