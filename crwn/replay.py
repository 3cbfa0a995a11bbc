"""The replay buffer: what a method keeps of the examples it has seen, as functions over memory tensors.

A buffer is a few tensors of a method's memory: `buffer.images`, the unsigned bytes of whole images in a row each;
`buffer.labels`; `buffer.seen`, how many examples were offered; and further fields, such as `buffer.logits`. A buffer of
no capacity has no tensors at all. No value is read back by the host: counts and slots are worked out on the device, so
that the same operations run in every step. A buffer is written in place, once a step has taken from it what it needs:
a copy of it in every step would often cost more than the rest of the step.

Which examples are kept is reservoir sampling (Vitter, "Random Sampling with a Reservoir", ACM TOMS 11, 1985, algorithm
R): of all examples offered so far, each is kept with the same chance. The random numbers come from the caller.

Shapes: K slots, B examples offered, R examples drawn, d numbers an image.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from crwn.methods.protocol import Tensors

IMAGES, LABELS, SEEN = "buffer.images", "buffer.labels", "buffer.seen"
WORD = torch.int64
"""What bytes are written as, where a row is made of whole words: several times faster than byte by byte on CPUs."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """Stored examples that were drawn.

    Attributes:
        slots_R: where they lie. The first ones are distinct; where fewer are stored than were asked for, the rest
            repeats them, so that nothing but stored examples is shown to a network (slot 0 while there is none).
        weights_R: 1 where an example was drawn, 0 where it only fills up; float64.
    """

    slots_R: torch.Tensor
    weights_R: torch.Tensor

    def take(self, state: Mapping[str, torch.Tensor], field: str) -> torch.Tensor:
        """A field of the drawn examples, such as `images`: [R, ...]."""
        return state[f"buffer.{field}"].index_select(0, self.slots_R)

    def mean(self, values_R: torch.Tensor) -> torch.Tensor:
        """The mean over what was drawn, [...] of [..., R]; 0 where nothing is stored."""
        weights_R = self.weights_R.to(values_R.dtype)
        return (values_R * weights_R).sum(dim=-1) / weights_R.sum().clamp(min=1)

    def mean_weights(self, dtype: torch.dtype, factor: float = 1.0) -> torch.Tensor:
        """What each value counts in `mean`, times a factor: [R]."""
        weights_R = self.weights_R.to(dtype)
        count = weights_R.sum().clamp(min=1)
        return weights_R * (torch.full_like(count, factor) / count)


def empty(
    capacity: int,
    image_size: int,
    fields: Mapping[str, tuple[int, ...]] | None = None,
    *,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
) -> Tensors:
    """A buffer in which nothing is stored.

    Args:
        capacity: K; with 0 there is no buffer, and no tensors.
        image_size: d.
        fields: further numbers of each example: their shape, by name.
        device: where it lies.
        dtype: of the further fields.

    Returns:
        Its tensors, by their names in a method's memory.
    """
    if capacity == 0:
        return {}
    buffer = {
        IMAGES: torch.zeros(capacity, image_size, dtype=torch.uint8, device=device),
        LABELS: torch.zeros(capacity, dtype=torch.int64, device=device),
        SEEN: torch.zeros((), dtype=torch.int64, device=device),
    }
    for name, shape in (fields or {}).items():
        buffer[f"buffer.{name}"] = torch.zeros(capacity, *shape, dtype=dtype, device=device)
    return buffer


def offer_(
    state: Mapping[str, torch.Tensor],
    examples: Mapping[str, torch.Tensor],
    uniforms_B: torch.Tensor,
    accepted_B: torch.Tensor | None = None,
) -> None:
    """Offer examples to a reservoir, one after another; the buffer is written in place.

    The n-th example goes into slot n while the buffer fills, then into slot floor(u n) if there is one, so that each of
    the n so far is kept with the chance K / n. Where two fall into one slot, the later one stays.

    Args:
        state: holds the buffer; where there is none, nothing is done.
        examples: every field of the examples, by its name without `buffer.`: [B, ...]; images of any shape.
        uniforms_B: one number in [0, 1) for each example, float64.
        accepted_B: where false, the example is not offered: neither kept nor counted.
    """
    if SEEN not in state:
        return
    seen, capacity = state[SEEN], len(state[LABELS])
    order_B = torch.arange(1, len(uniforms_B) + 1, device=seen.device)
    counted_B = order_B if accepted_B is None else accepted_B.cumsum(0)
    number_B = seen + counted_B
    slot_B = torch.where(number_B > capacity, uniforms_B * number_B, number_B - 1).to(torch.int64).clamp_(max=capacity)
    if accepted_B is not None:
        slot_B = slot_B.masked_fill(~accepted_B, capacity)
    # Rows that are written to one slot get there in no certain order on GPUs. So each example writes what its slot
    # holds in the end: the last example that falls into it. What is not kept, with the slot K, writes slot 0, whose own
    # row stays if nothing falls into it.
    written_B = slot_B.remainder(capacity)
    last_B = ((written_B[:, None] == slot_B) * order_B).amax(dim=1)
    for name, given in examples.items():
        stored = state[f"buffer.{name}"]
        rows = torch.cat([stored[:1], given.detach().reshape(-1, *stored.shape[1:])]).index_select(0, last_B)
        _in_words(stored).index_copy_(0, written_B, _in_words(rows))
    seen += counted_B[-1]


def put(state: Mapping[str, torch.Tensor], examples: Mapping[str, torch.Tensor]) -> Tensors:
    """Keep examples in the next slots.

    Args:
        state: holds the buffer, which has room for them.
        examples: every field of the examples, by its name without `buffer.`: [B, ...].

    Returns:
        The buffer's new tensors, by name.
    """
    num_examples = len(examples["labels"])
    slot_B = state[SEEN] + torch.arange(num_examples, device=state[SEEN].device)
    moved = {SEEN: state[SEEN] + num_examples}
    for name, given in examples.items():
        stored = state[f"buffer.{name}"]
        moved[f"buffer.{name}"] = stored.index_copy(0, slot_B, given.detach().reshape(-1, *stored.shape[1:]))
    return moved


def draw(state: Mapping[str, torch.Tensor], count: int, keys_K: torch.Tensor) -> Drawn:
    """Draw stored examples without replacement: those with the smallest keys.

    Args:
        state: holds the buffer.
        count: how many; all of them, where fewer are stored.
        keys_K: a number in [0, 1) for each slot, float64.

    Returns:
        R = `count` examples, or as many as there are slots.
    """
    seen, capacity = state[SEEN], len(state[LABELS])
    slot_K = torch.arange(capacity, device=seen.device)
    keys_K = keys_K.masked_fill(slot_K >= seen, 2.0)  # above all others
    slots_R = keys_K.topk(min(count, capacity), largest=False, sorted=True).indices
    place_R = slot_K[: len(slots_R)]
    slots_R = slots_R.index_select(0, place_R % seen.clamp(1, len(slots_R)))
    return Drawn(slots_R=slots_R, weights_R=(place_R < seen).to(keys_K.dtype))


def _in_words(rows: torch.Tensor) -> torch.Tensor:
    """The same memory, rows of bytes as rows of words where they are made of whole ones."""
    if rows.dtype == torch.uint8 and rows.shape[1] % WORD.itemsize == 0 and rows.storage_offset() % WORD.itemsize == 0:
        return rows.view(WORD)
    return rows
