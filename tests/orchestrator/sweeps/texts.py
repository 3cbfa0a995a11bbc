"""Small sweep files, by their parts."""

from __future__ import annotations

# One part a line, in this order; a test replaces or adds some. Without a name the parts begin in line 1.
PARTS = {"seeds": "[0]", "benchmarks": "[r-digits]", "methods": "{neuromodnet: {scales: [FC16]}}"}


def text_of(**parts: str) -> str:
    """A small sweep: seeds in line 1, benchmarks in line 2, methods in line 3, the parts given after them."""
    return "".join(f"{name}: {value}\n" for name, value in {**PARTS, **parts}.items())
