"""The cases of fine-tuning."""

from __future__ import annotations

from crwn.methods.finetune import FinetuneSpec
from tests.methods.case import Case

CASES = {"finetune": Case(method=FinetuneSpec())}
