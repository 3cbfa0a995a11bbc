"""Serialises tensors with a JSON header in the safetensors format, so that reading a file runs no code.

A SHA-256 over header and tensors is stored with them, so that a damaged file is refused and never used.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import safetensors
import safetensors.torch
import torch

from crwn.faults import InvalidError

HEADER_KEY = "crwn"
"""The only metadata entry: safetensors writes several in no fixed order, and equal content must give equal bytes."""


def dump(tensors: Mapping[str, torch.Tensor], header: Mapping[str, Any]) -> bytes:
    """Serialise tensors (copied to the CPU) and a header of JSON values; equal content gives equal bytes."""
    on_cpu = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    envelope = _json({"header": header, "sha256": _digest(on_cpu, header)})
    return safetensors.torch.save(on_cpu, metadata={HEADER_KEY: envelope})


def parse(content: bytes) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The tensors and the header that `dump` was given.

    Raises:
        ValueError: the bytes are not such a file, or were changed.
    """
    try:
        tensors = safetensors.torch.load(content)
        length = int.from_bytes(content[:8], "little")
        text = json.loads(content[8 : 8 + length])["__metadata__"][HEADER_KEY]
        envelope = json.loads(text)
        header = dict(envelope["header"])
        # The first comparison catches what parsing hides, such as a changed last digit of a long number.
        intact = text == _json(envelope) and envelope["sha256"] == _digest(tensors, header)
    except (safetensors.SafetensorError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InvalidError(
            "not-tensors", f"expected a complete safetensors file that crwn wrote, given something else: {error!r}"
        ) from error
    if not intact:
        raise InvalidError(
            "content-changed",
            "expected the content that was written, found a different one: the SHA-256 differs; the file is damaged",
        )
    return tensors, header


def _digest(tensors: Mapping[str, torch.Tensor], header: Mapping[str, Any]) -> str:
    digest = hashlib.sha256(_json(header).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
