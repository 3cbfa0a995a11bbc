"""A sweep as values: what one trial gets, the cells of its table, and what the store keeps of it.

What a file may say is in `reading.py`, which makes a sweep of it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from annotated_types import Ge, Gt

from crwn.spec import READ_STRICTLY, Blueprint, TrialSpec
from orchestrator.store.manifests import Manifest, ManifestCell


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """What one trial gets of a machine; not part of the trial's identity.

    Attributes:
        gpus: a share below 1, or a whole number; None for the share that its memory asks for, where there is a GPU.
        cpus: CPU cores; a trial computes with a thread for each whole one.

    Raises:
        ValueError: a number of GPUs above 1 that is not whole.
    """

    __pydantic_config__: ClassVar[Mapping[str, Any]] = READ_STRICTLY

    gpus: Annotated[float, Ge(0)] | None = None
    cpus: Annotated[float, Gt(0)] = 1.0

    def __post_init__(self) -> None:
        if self.gpus is not None and self.gpus > 1 and self.gpus != int(self.gpus):
            raise ValueError(f"gpus: expected a share of at most 1 or a whole number, given {self.gpus:g}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One cell of a sweep's table: trials that differ by their seed alone, under the sweep's own names.

    Attributes:
        group_size: at most so many tasks learned at once; None for the rule's choice.
        base: the variant that those of its entry are compared with, where the entry is an ablation; else None.
    """

    method: str
    variant: str
    scale: str
    benchmark: str
    trials: tuple[TrialSpec, ...]
    group_size: int | None = None
    base: str | None = None

    @property
    def blueprint(self) -> Blueprint:
        """What the trials build; only drawn numbers differ between seeds."""
        return self.trials[0].blueprint()

    @property
    def settings(self) -> dict[str, Any]:
        """What the trials have in common: their spec without the seed, as JSON values."""
        spec: dict[str, Any] = json.loads(self.trials[0].canonical_json())
        return {name: value for name, value in spec.items() if name != "seed"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """A validated sweep.

    Attributes:
        name: what it is called in the store.
        store: the store that it names, a path or a URI, or None.
        cells: in the order of the file.
        resources: of each trial.
        reference: the method whose params/task the others' are compared with, or None.
        keep_weights: whether trained weights are kept with the contexts.
    """

    name: str
    store: str | None
    cells: tuple[Cell, ...]
    resources: Resources
    reference: str | None = None
    keep_weights: bool = False

    @property
    def trials(self) -> tuple[TrialSpec, ...]:
        """All trials, in the order of the file."""
        return tuple(trial for cell in self.cells for trial in cell.trials)

    @property
    def group_sizes(self) -> dict[str, int]:
        """How many tasks at most are learned at once, by trial; those without a limit are left out."""
        return {
            trial.trial_id: cell.group_size
            for cell in self.cells
            if cell.group_size is not None
            for trial in cell.trials
        }

    def ratio(self, cell: Cell) -> float | None:
        """A cell's params/task over those of the reference on the same benchmark; None without a reference."""
        for other in self.cells:
            if other.method == self.reference and other.benchmark == cell.benchmark:
                return cell.blueprint.params_per_task / other.blueprint.params_per_task
        return None

    def manifest(self) -> Manifest:
        """What the store keeps of the sweep: which trials it asks for, under which names."""
        cells = tuple(
            ManifestCell(
                method=cell.method,
                variant=cell.variant,
                scale=cell.scale,
                benchmark=cell.benchmark,
                trials={trial.seed: trial.trial_id for trial in cell.trials},
                continual=cell.blueprint.is_continual,
                validation=cell.trials[0].benchmark.validation,
                params_per_task=float(cell.blueprint.params_per_task),
                ratio=self.ratio(cell),
                spec=cell.settings,
                base=cell.base,
                examples_kept=cell.blueprint.examples_kept,
            )
            for cell in self.cells
        )
        return Manifest(name=self.name, reference=self.reference, cells=cells)
