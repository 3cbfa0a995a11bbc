"""The cases of LwF, which needs classes that arrive in groups."""

from __future__ import annotations

from crwn.benchmarks.sequential import SequentialSpec
from crwn.methods.lwf import LwFSpec
from tests.methods.case import Case

CASES = {"lwf": Case(method=LwFSpec(), benchmark=SequentialSpec(base="digits"))}
