"""The replay buffer: examples that a method has seen and stored, as functions over memory tensors.

A buffer consists of tensors in a method's memory: `buffer.images`, one flattened image of unsigned bytes per row;
`buffer.labels`; `buffer.seen`, the number of examples offered; and further fields, such as `buffer.logits`. A buffer of
capacity 0 has no tensors. The host reads no value back: counts and slots are computed on the device, so that every step
runs the same operations. A buffer is updated in place, after a step has read what it needs: copying it in every step
would often cost more than the rest of the step.

Examples are chosen by reservoir sampling (Vitter, "Random Sampling with a Reservoir", ACM TOMS 11, 1985, algorithm R):
each of the examples offered so far is stored with equal probability. The random numbers come from the caller.

Shapes: K slots, B examples offered, R examples drawn, d values per image.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

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
    uniforms_B: torch.Tensor,
    accepted_B: torch.Tensor | None = None,
) -> None:
    """Offer examples to a reservoir, one after another; the buffer is updated in place.

    The n-th example goes into slot n while the buffer fills, then into slot floor(u n) if it exists, so that each of
    the n examples so far is stored with probability K / n. If two fall into the same slot, the later one stays.

    Args:
        state: holds the buffer; without one, nothing is done.
        examples: every field of the examples, by its name without `buffer.`: [B, ...]; images of any shape.
        uniforms_B: one number in [0, 1) per example, float64.
        accepted_B: where false, the example is not offered: neither stored nor counted.
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
    # On GPUs, several rows written to one slot arrive in no fixed order. So each example writes the slot's final
    # content: the last example that falls into it. Examples that are not stored, with slot K, write slot 0, which keeps
    # its own row if no example falls into it.
    written_B = slot_B.remainder(capacity)
    last_B = ((written_B[:, None] == slot_B) * order_B).amax(dim=1)
    for name, given in examples.items():
        stored = state[f"buffer.{name}"]
        rows = torch.cat([stored[:1], given.detach().reshape(-1, *stored.shape[1:])]).index_select(0, last_B)
        _in_words(stored).index_copy_(0, written_B, _in_words(rows))
    seen += counted_B[-1]


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
