"""The cases of every method, each from the file that has the method's name in the registry: `CASES` in it.

Whatever is tested of all methods reads `CASES`, so that a new method brings its file, and edits no other.
"""

from __future__ import annotations

import dataclasses
import importlib

from crwn.benchmarks.sequential import SequentialSpec
from crwn.benchmarks.turning import TurningSpec
from crwn.methods import METHODS
from crwn.spec import SCENARIOS, BenchmarkSpec
from tests.methods.case import Case


def _cases() -> dict[str, Case]:
    found: dict[str, Case] = {}
    for kind in METHODS:
        try:
            module = importlib.import_module(f"tests.methods.{kind}")
        except ModuleNotFoundError as error:
            raise LookupError(f"expected tests/methods/{kind}.py with CASES, as CONTRIBUTING.md has it") from error
        assert next(iter(module.CASES)) == kind, f"tests/methods/{kind}.py: expected {kind!r} to be the first case"
        for name, case in module.CASES.items():
            assert name.partition("-")[0] == case.method.kind == kind, f"tests/methods/{kind}.py: {name!r}"
            found[name] = case
    return found


CASES = _cases()
"""By name: a method's own is its first, and one of its modes is called `<method>-<mode>`."""

BENCHMARKS: dict[str, BenchmarkSpec] = {
    "classes": SequentialSpec(base="digits", num_tasks=2),
    "stream": TurningSpec(base="digits", test_every=8),
}


def _elsewhere() -> dict[str, Case]:
    """Methods that need the task learn neither; who needs to be told ends learns no stream."""
    found: dict[str, Case] = {}
    for kind in METHODS:
        case = CASES[kind]
        for place, benchmark in BENCHMARKS.items():
            told = SCENARIOS[benchmark.problem().scenario]
            if case.blueprint().needs <= told and (case.benchmark is None or case.benchmark.kind != benchmark.kind):
                found[f"{kind}, {place}"] = dataclasses.replace(case, benchmark=benchmark)
    return found


ELSEWHERE = _elsewhere()
"""Each method's own case where classes arrive in groups, and in a stream, as far as it can learn there."""
