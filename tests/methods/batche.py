"""The cases of BatchE."""

from __future__ import annotations

from crwn.methods.batche import BatchESpec
from tests.methods.case import Case

# In a few updates at a rate as high as the others' the first task does change the shared weights.
CASES = {"batche": Case(method=BatchESpec(), quick=BatchESpec(first_task_rate=0.01))}
