"""The cases of fine-tuning: rotated digits, and classes that arrive in groups."""

from __future__ import annotations

from crwn.benchmarks.sequential import SequentialSpec
from crwn.methods.finetune import FinetuneSpec
from tests.methods.case import Case

CASES = {
    "finetune": Case(method=FinetuneSpec()),
    "finetune-class": Case(method=FinetuneSpec(), benchmark=SequentialSpec(base="digits")),
}
