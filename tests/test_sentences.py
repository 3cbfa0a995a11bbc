"""What users read, word for word: the most important messages of every area, in this file alone.

All other tests name a fault by its code and the facts in its message (`tests/refusals.py`), so that a message is
reworded here and where it is raised, and nowhere else.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from crwn.benchmarks.rotated import RotatedSpec
from crwn.benchmarks.sequential import SequentialSpec
from crwn.benchmarks.turning import TurningSpec
from crwn.faults import FaultError
from crwn.methods.er import ERSpec
from crwn.methods.ewc import EWCSpec
from crwn.methods.neuromodnet import NeuroModNetSpec
from crwn.spec import TrainingSpec, TrialSpec
from orchestrator.sweeps.reading import load_sweep

SWEEP = """\
seeds: [0]
benchmarks: [{benchmark}]
methods: {{neuromodnet: {{{entry}}}}}
"""


def trial(method: Any, **changes: Any) -> TrialSpec:
    """A trial on rotated digits."""
    settings = {"scale": "FC16", "seed": 0, "training": TrainingSpec(learning_rate=0.1), **changes}
    return TrialSpec(**{"benchmark": RotatedSpec(base="digits"), **settings, "method": method})


def sweep(folder: Path, benchmark: str = "r-digits", entry: str = "scales: [FC16]") -> None:
    """Reads a sweep in which this is given."""
    file = folder / "sweep.yaml"
    file.write_text(SWEEP.format(benchmark=benchmark, entry=entry))
    load_sweep(file)


MESSAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "a setting beyond its bounds": (
        lambda _: TrainingSpec(learning_rate=-1, batch_size=0),
        "learning_rate: expected more than 0, given -1.0; batch_size: expected at least 1, given 0",
    ),
    "a choice that there is not": (
        lambda _: NeuroModNetSpec(modulation="lcoal"),  # type: ignore[arg-type]
        "modulation: expected one of 'local+global', 'local', 'global', given 'lcoal'",
    ),
    "a scale that there is not": (
        lambda _: trial(NeuroModNetSpec(), scale="10d"),
        "scale: expected one such as FC256 or FC4096, or, for a ResNet-18, 1d or 6d, nf10 or nf64; given '10d'",
    ),
    "a scenario in which the task is not told": (
        lambda _: trial(EWCSpec(), benchmark=TurningSpec(base="digits")),
        (
            "ewc needs to be told when a task begins and ends, which the scenario 'general' of 'turning' does not "
            "tell; it runs where the scenario is 'task' or 'domain' or 'class'"
        ),
    ),
    "a buffer larger than the data": (
        lambda _: trial(ERSpec(buffer=2000), benchmark=SequentialSpec(base="digits")),
        "buffer: expected at most the 1437 training images of the benchmark, given 2000",
    ),
    "a sweep with faults": (
        lambda folder: sweep(folder, benchmark="r-digit", entry="scales: [FC16], settings: {weight_gain: 010}"),
        (
            "{folder}/sweep.yaml: 2 faults; nothing was started\n"
            "  line 2, benchmarks[0]: expected one of {presets}; given 'r-digit'; did you mean 'r-digits'?\n"
            "  line 3, methods.neuromodnet.settings.weight_gain: expected a number that all programs read alike, given "
            "010; write 10 (or 0o10 for 8), or '010' in quotes where text is meant"
        ),
    ),
}
"""What raises an error, and all that it says."""


@pytest.mark.parametrize("name", MESSAGES)
def test_a_message_reads_as_it_is_meant_to(name: str, tmp_path: Path) -> None:
    """Expected, given, where, what to do."""
    from crwn.benchmarks import PRESETS

    cause, message = MESSAGES[name]
    with pytest.raises(FaultError) as caught:
        cause(tmp_path)
    said = str(caught.value).replace(", ".join(sorted(PRESETS)), "{presets}")
    assert said.replace(str(tmp_path), "{folder}") == message
