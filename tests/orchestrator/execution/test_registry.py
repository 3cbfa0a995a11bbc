"""The executors, and which one a run uses."""

from __future__ import annotations

import pytest

from orchestrator.execution.executors import EXECUTORS, FEW_TRIALS, default_executor
from orchestrator.execution.inline import InlineExecutor


def test_the_registry_is_a_literal_mapping() -> None:
    """Names are as on the command line; nothing is added by accident."""
    assert list(EXECUTORS) == ["inline", "ray"]
    assert isinstance(EXECUTORS["inline"](), InlineExecutor)
    with pytest.raises(TypeError):
        EXECUTORS["other"] = InlineExecutor  # type: ignore[index]


@pytest.mark.parametrize(
    ("num_trials", "name"), [(1, "inline"), (FEW_TRIALS, "inline"), (FEW_TRIALS + 1, "ray"), (10_000, "ray")]
)
def test_few_trials_run_inline(num_trials: int, name: str) -> None:
    """Starting Ray takes longer than a few trials one after another."""
    assert default_executor(num_trials) == name
