"""Continual-learning trials in pure PyTorch, and a Python interface to run them and read their results.

    import crwn

    results = crwn.run(crwn.load_sweep("sweeps/quickstart.yaml"))  # or crwn.open("runs/quickstart")
    results.trials                                                 # a DataFrame, one row per trial

See docs/python.md. The names below are imported on first use: `import crwn` alone takes milliseconds,
and nothing of this package imports the orchestrator, whose interface `open`, `run` and `load_sweep` are.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from crwn.contexts import ContextBank
    from crwn.trial_spec import TrialSpec
    from orchestrator import api
    from orchestrator.api import UnfinishedError, UserError, load_sweep, run

    open = api.open_store  # noqa: A001 (`crwn.open` reads as what it does)

__all__ = [
    "ContextBank",
    "TrialSpec",
    "UnfinishedError",
    "UserError",
    "load_sweep",
    "run",
]  # `open` would shadow the built-in

_PLACES: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "ContextBank": ("crwn.contexts", "ContextBank"),
        "TrialSpec": ("crwn.trial_spec", "TrialSpec"),
        "UnfinishedError": ("orchestrator.api", "UnfinishedError"),
        "UserError": ("orchestrator.api", "UserError"),
        "load_sweep": ("orchestrator.api", "load_sweep"),
        "open": ("orchestrator.api", "open_store"),
        "run": ("orchestrator.api", "run"),
    }
)
"""The module and the name of each, by its name here."""

if not TYPE_CHECKING:  # a type checker sees only the imports above

    def __getattr__(name: str) -> object:
        """Import a name on first use."""
        if name not in _PLACES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        module, own = _PLACES[name]
        found = getattr(importlib.import_module(module), own)
        globals()[name] = found
        return found

    def __dir__() -> list[str]:
        """The names offered by completion."""
        return sorted({*globals(), *_PLACES})
