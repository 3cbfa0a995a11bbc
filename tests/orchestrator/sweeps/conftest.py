"""Loads small sweeps, or gives all of their faults."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.errors import UserError
from orchestrator.sweeps.reading import load_sweep
from orchestrator.sweeps.sweep import Sweep
from tests.orchestrator.sweeps.texts import text_of

SweepFile = Callable[..., Path]
Load = Callable[..., Sweep]
Faults = Callable[..., list[str]]


@pytest.fixture
def load(sweep_file: SweepFile) -> Load:
    """Loads a small sweep with some parts replaced."""

    def read(**parts: str) -> Sweep:
        return load_sweep(sweep_file(text_of(**parts)))

    return read


@pytest.fixture
def faults(sweep_file: SweepFile) -> Faults:
    """The faults of a small sweep with some parts replaced, or of a text, each as `line N, path: message`."""

    def read(text: str | None = None, **parts: str) -> list[str]:
        with pytest.raises(UserError, match=r"sweep\.yaml: \d+ faults?; nothing was started") as error:
            load_sweep(sweep_file(text_of(**parts) if text is None else text))
        return [line.strip() for line in str(error.value).splitlines()[1:]]

    return read
