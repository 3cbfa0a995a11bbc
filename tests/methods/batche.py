"""The cases of BatchE: as it is, and starting from earlier tasks' factors."""

from __future__ import annotations

from crwn.methods.batche import BatchESpec
from tests.methods.case import Case

# In a few updates at a rate as high as the others' the first task does change the shared weights.
CASES = {
    "batche": Case(method=BatchESpec(), quick=BatchESpec(first_task_rate=0.01)),
    "batche-best": Case(
        method=BatchESpec(context_from="best"), quick=BatchESpec(context_from="best", first_task_rate=0.01)
    ),
}
