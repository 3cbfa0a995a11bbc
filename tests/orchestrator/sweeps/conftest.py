"""Loads small sweeps, or gives all of their faults."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.sweeps.places import FileFaultsError
from orchestrator.sweeps.reading import load_sweep
from orchestrator.sweeps.sweep import Sweep
from tests.orchestrator.sweeps.texts import Found, found_in, text_of

SweepFile = Callable[..., Path]
Load = Callable[..., Sweep]
Faults = Callable[..., list[Found]]


@pytest.fixture
def load(sweep_file: SweepFile) -> Load:
    """Loads a small sweep with some parts replaced."""

    def read(**parts: str) -> Sweep:
        return load_sweep(sweep_file(text_of(**parts)))

    return read


@pytest.fixture
def faults(sweep_file: SweepFile) -> Faults:
    """The faults of a small sweep with some parts replaced, or of a text, in the order of their lines."""

    def read(text: str | None = None, **parts: str) -> list[Found]:
        with pytest.raises(FileFaultsError, match=r"sweep\.yaml: \d+ ") as error:
            load_sweep(sweep_file(text_of(**parts) if text is None else text))
        return found_in(error.value)

    return read
