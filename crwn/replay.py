"""The replay buffer: examples that a method has seen and stored, as functions over memory tensors.

A buffer consists of tensors in a method's memory: `buffer.images`, one flattened image of unsigned bytes per row;
`buffer.labels`; `buffer.seen`, the number of examples offered; and further fields, such as `buffer.logits`. A buffer of
capacity 0 has no tensors. The host reads no value back: where an example goes depends on random numbers and on how many
came before it, both of which the host knows, and what is drawn is computed on the device. A buffer is updated in place,
after a step has read what it needs: copying it in every step would often cost more than the rest of the step.

Examples are chosen by reservoir sampling (Vitter, "Random Sampling with a Reservoir", ACM TOMS 11, 1985, algorithm R):
each of the examples offered so far is stored with equal probability. The random numbers come from the caller.

Shapes: K slots, B examples offered, R examples drawn, d values per image.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from crwn.batches import sent
from crwn.methods.protocol import Tensors

IMAGES, LABELS, SEEN = "buffer.images", "buffer.labels", "buffer.seen"
WORD = torch.int64
"""The dtype in which rows of bytes are copied if their length allows: several times faster than bytes on CPUs."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """Examples drawn from the buffer.

    Attributes:
        slots_R: their slots. The first ones are distinct; if fewer are stored than requested, the rest repeat them, so
            that a network sees only stored examples (slot 0 while there are none).
        weights_R: 1 for drawn examples, 0 for padding; float64.
    """

    slots_R: torch.Tensor
    weights_R: torch.Tensor

    def take(self, state: Mapping[str, torch.Tensor], field: str) -> torch.Tensor:
        """A field of the drawn examples, such as `images`: [R, ...]."""
        return state[f"buffer.{field}"].index_select(0, self.slots_R)

    def mean(self, values_R: torch.Tensor) -> torch.Tensor:
        """The mean over the drawn examples, [...] from [..., R]; 0 if nothing is stored."""
        weights_R = self.weights_R.to(values_R.dtype)
        return (values_R * weights_R).sum(dim=-1) / weights_R.sum().clamp(min=1)

    def mean_weights(self, dtype: torch.dtype, factor: float = 1.0) -> torch.Tensor:
        """The weight of each value in `mean`, times a factor: [R]."""
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
    """An empty buffer.

    Args:
        capacity: K; with 0, there is no buffer and there are no tensors.
        image_size: d.
        fields: shapes of further fields per example, by name.
        device: the device of the tensors.
        dtype: dtype of the further fields.

    Returns:
        The buffer's tensors, by their names in a method's memory.
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
    uniforms_B: NDArray[np.float64],
    seen: int,
) -> None:
    """Offer examples to a reservoir, one after another; the buffer is updated in place.

    The n-th example goes into slot n while the buffer fills, then into slot floor(u n) if it exists, so that each of
    the n examples so far is stored with probability K / n. If two fall into the same slot, the later one stays.

    Args:
        state: holds the buffer; without one, nothing is done.
        examples: every field of the examples, by its name without `buffer.`: [B, ...]; images of any shape.
        uniforms_B: one number in [0, 1) per example.
        seen: the number of examples offered before.
    """
    if SEEN not in state:
        return
    capacity = state[LABELS].shape[0]
    stored = dict[int, int]()  # which example each slot receives
    for place, uniform in enumerate(uniforms_B.tolist()):
        number = seen + place + 1
        slot = number - 1 if number <= capacity else int(uniform * number)
        if slot < capacity:
            stored[slot] = place
    if stored:
        slots, places = sent(np.array([[*stored], [*stored.values()]]), state[LABELS].device)
        for name, given in examples.items():
            kept = state[f"buffer.{name}"]
            rows = given.detach().reshape(-1, *kept.shape[1:]).index_select(0, places)
            _in_words(kept).index_copy_(0, slots, _in_words(rows))
    state[SEEN].add_(len(uniforms_B))


def offer_those_(
    state: Mapping[str, torch.Tensor],
    examples: Mapping[str, torch.Tensor],
    uniforms_B: torch.Tensor,
    *,
    counted_B: torch.Tensor,
    stored_B: torch.Tensor,
) -> None:
    """Offer some examples to a reservoir, chosen by what only the device knows; else like `offer_`.

    Args:
        state: holds the buffer.
        examples: every field of the examples, by its name without `buffer.`: [B, ...]; images of any shape.
        uniforms_B: one number in [0, 1) per example, float64 on the device.
        counted_B: which examples are offered.
        stored_B: which of these may be stored; the slots of the others stay as they are, empty while the buffer fills.
    """
    capacity, place_B = state[LABELS].shape[0], torch.arange(len(counted_B), device=counted_B.device)
    number_B = state[SEEN] + counted_B.cumsum(dim=0)
    slot_B = torch.where(number_B <= capacity, number_B - 1, (uniforms_B * number_B).to(number_B.dtype))
    stays_B = counted_B & stored_B & (slot_B < capacity)
    is_later_BB = (slot_B[:, None] == slot_B) & (place_B[:, None] < place_B) & stays_B
    stays_B = stays_B & ~is_later_BB.any(dim=1)
    # Whatever is not stored repeats one that is; if none is, slot 0 is written as it is.
    has_any, one = stays_B.any(), stays_B.to(torch.int64).argmax()
    place_B = torch.where(stays_B, place_B, one)
    slot_B = torch.where(has_any, slot_B.index_select(0, place_B), 0)
    for name, given in examples.items():
        kept = state[f"buffer.{name}"]
        rows = given.detach().reshape(-1, *kept.shape[1:]).index_select(0, place_B)
        rows = torch.where(has_any, rows, kept[:1])
        _in_words(kept).index_copy_(0, slot_B, _in_words(rows))
    state[SEEN].add_(counted_B.sum())


def put(state: Mapping[str, torch.Tensor], examples: Mapping[str, torch.Tensor]) -> Tensors:
    """Store examples in the next slots.

    Args:
        state: holds the buffer, which must have room for them.
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
        count: number of examples to draw; if fewer are stored, all of them are drawn.
        keys_K: one number in [0, 1) per slot, float64.

    Returns:
        R = `count` examples, or as many as there are slots.
    """
    seen, capacity = state[SEEN], len(state[LABELS])
    slot_K = torch.arange(capacity, device=seen.device)
    keys_K = keys_K.masked_fill(slot_K >= seen, 2.0)  # larger than all other keys
    slots_R = keys_K.topk(min(count, capacity), largest=False, sorted=True).indices
    place_R = slot_K[: len(slots_R)]
    slots_R = slots_R.index_select(0, place_R % seen.clamp(1, len(slots_R)))
    return Drawn(slots_R=slots_R, weights_R=(place_R < seen).to(keys_K.dtype))


def _in_words(rows: torch.Tensor) -> torch.Tensor:
    """A view of the same memory, with rows of bytes as rows of words if they consist of whole words."""
    if rows.dtype == torch.uint8 and rows.shape[1] % WORD.itemsize == 0 and rows.storage_offset() % WORD.itemsize == 0:
        return rows.view(WORD)
    return rows
