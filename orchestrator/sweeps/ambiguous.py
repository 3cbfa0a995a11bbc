"""Explains numbers in YAML that programs read differently: why one is refused, and what to write instead."""

from __future__ import annotations

import functools
import re

from orchestrator.errors import MAX_SHOWN, shortened


def explain_number(text: str) -> str:
    """Why an ambiguous number is refused, and what to write instead."""
    if len(text) > MAX_SHOWN:  # too long to be meant as a number
        return f"expected int, given {shortened(text)!r}"
    why = f"expected a number that all programs read alike, given {text}"
    octal = re.fullmatch(r"0+([1-7][0-7]+)", text)
    eight = "" if octal is None else f" (or 0o{octal[1]} for {int(octal[1], 8)})"
    return f"{why}; write {_in_base_ten(text)}{eight}, or '{text}' in quotes where text is meant"


def _in_base_ten(text: str) -> str:
    """An ambiguous number as most likely meant, without leading zeros and underscores."""
    sign, digits = "-" if text.startswith("-") else "", text.lstrip("+-").replace("_", "").lower()
    if ":" in digits:
        *high, last = digits.split(":")
        whole, point, fraction = last.partition(".")
        value = functools.reduce(lambda total, part: 60 * total + int(part), [*high, whole], 0)
        return f"{sign}{value}{point}{fraction}"
    if digits.startswith(("0b", "0x")):
        return f"{sign}{int(digits, 0)}"
    significant = digits.lstrip("0")
    return sign + (significant if significant[:1].isdigit() else f"0{significant}")
