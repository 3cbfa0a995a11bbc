"""The context bank: the tensors kept for every learned task.

Shapes: T tasks. The task axis comes first.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from crwn import tensorfile
from crwn.faults import InvalidError
from crwn.methods.protocol import Tensors
from crwn.spec import TrialSpec

CONTENT = "contexts"
FORMAT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ContextBank:
    """The tensors kept for all tasks, and the trial and backbone that they belong to.

    Attributes:
        tensors: by name, such as `layer1.context` [T, I] and `layer1.strength` [T]; masks are packed bits. Weights are
            included only if the trial was asked to keep them; shared ones, such as `shared.layer1.weight` [O, I], have
            no task axis.
        trial_id: the trial that learned them.
        spec: its resolved spec, as parsed JSON.
        fingerprint: the fingerprint of the backbone that they modulate.
    """

    tensors: Tensors
    trial_id: str
    spec: dict[str, Any]
    fingerprint: str


def dump(kept: Sequence[Tensors], shared: Tensors, spec: TrialSpec, fingerprint: str) -> bytes:
    """The contexts of all tasks as a safetensors file.

    Args:
        kept: one dictionary per task, each tensor with a task axis of length 1; empty to leave them out.
        shared: weights that all tasks share; empty to leave them out.
        spec: the trial's spec.
        fingerprint: the fingerprint of its backbone.
    """
    stacked = {name: torch.cat([task[name].cpu() for task in kept]) for name in (kept[0] if kept else ())}
    stacked |= {f"shared.{name}": tensor.cpu() for name, tensor in shared.items()}
    header = {
        "content": CONTENT,
        "format": FORMAT,
        "trial_id": spec.trial_id,
        "spec": json.loads(spec.canonical_json()),
        "fingerprint": fingerprint,
    }
    return tensorfile.dump(stacked, header)


def load(content: bytes) -> ContextBank:
    """Read what `dump` wrote.

    Raises:
        ValueError: it is not such a file, or its format is newer.
    """
    tensors, header = tensorfile.parse(content)
    if header.get("content") != CONTENT:
        raise InvalidError("not-contexts", f"expected a file of contexts, given one of {header.get('content')!r}")
    if header.get("format") != FORMAT:
        raise InvalidError(
            "newer-format", f"contexts: expected format {FORMAT}, given {header.get('format')!r}; use a newer crwn"
        )
    return ContextBank(
        tensors=tensors, trial_id=header["trial_id"], spec=header["spec"], fingerprint=header["fingerprint"]
    )
