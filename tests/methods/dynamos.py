"""The cases of Dynamos."""

from __future__ import annotations

from crwn.methods.dynamos import DynamosSpec
from tests.methods.case import Case

# Within thirty updates the rule `correct` replays the classes that are answered first, and tests still prefer them.
QUICK = DynamosSpec(buffer=64, replay_batch=64, stores="all", wrong_factor=1.0, warm_up=2)

CASES = {
    "dynamos": Case(
        method=DynamosSpec(),
        quick=QUICK,
        scale="dynamos-nf2",
        trace_scale="dynamos-nf4",
        table_scale="dynamos",
    ),
}
