"""Small sweep files, by their parts."""

from __future__ import annotations

from orchestrator.sweeps.places import FileFaultsError

EXAMPLE = """\
name: example
store: runs/shared
seeds: [0, 1, 2]
benchmarks:
  r-mnist:
  six rotations: {preset: r-mnist, num_tasks: 6}
  own: {kind: permuted, base: digits, num_tasks: 12}
methods:
  supsup: {scales: [FC256]}
  neuromodnet:
    scales: [FC256, FC1024]
    settings: {initial_strength: 1.0}
    training: {learning_rate: 0.01}
    group_size: 8
    variants:
      both: {}
      local: {settings: {modulation: local}}
training: {updates_per_task: 1000}
reference: supsup
keep_weights: false
resources: {gpus: 0.25, cpus: 1}
"""
"""A sweep with something of everything."""

# One part per line, in this order; a test replaces or adds some. Without a name the parts begin in line 1.
PARTS = {"seeds": "[0]", "benchmarks": "[r-digits]", "methods": "{neuromodnet: {scales: [FC16]}}"}


def text_of(**parts: str) -> str:
    """A small sweep: seeds in line 1, benchmarks in line 2, methods in line 3, the parts given after them."""
    return "".join(f"{name}: {value}\n" for name, value in {**PARTS, **parts}.items())


class Found(str):
    """A fault of a file as it is printed, `line N, place: message`.

    Attributes:
        where: the line and the place, `line 3, methods.flynet`.
        codes: its codes.
        message: what is said of it.
    """

    __slots__ = ("codes", "message", "where")

    where: str
    codes: tuple[str, ...]
    message: str


def found_in(error: FileFaultsError) -> list[Found]:
    """The faults that an error prints, in their order."""
    found = []
    lines = [
        line for line in str(error).splitlines()[1:] if ": " in line
    ]  # the last may count those that are not shown
    for line, fault in zip(lines, error.faults, strict=False):
        told = Found(line.strip())
        told.codes, told.message = fault.codes, fault.message
        told.where = told.removesuffix(f": {fault.message}")
        found.append(told)
    return found
