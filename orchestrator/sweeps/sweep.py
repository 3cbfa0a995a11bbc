"""A sweep as values: the resources of a trial, the cells of the sweep's table, and its manifest.

`reading.py` defines the file format and reads a sweep from it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from annotated_types import Ge, Gt

from crwn.faults import InvalidError
from crwn.plugins import DefinedSet, Plugin
from crwn.spec import READ_STRICTLY, Blueprint
from crwn.trial_spec import TrialSpec
from orchestrator.errors import UserError
from orchestrator.store.manifests import Manifest, ManifestCell, ManifestPlugin
from orchestrator.store.recorded_spec import RecordedSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """The resources of one trial; not part of the trial's identity.

    Attributes:
        gpus: a share below 1, or a whole number; None: the share that its memory needs, if there is a GPU.
        cpus: CPU cores; a trial uses one thread per whole core.

    Raises:
        ValueError: the number of GPUs is above 1 and not whole.
    """

    __pydantic_config__: ClassVar[Mapping[str, Any]] = READ_STRICTLY

    gpus: Annotated[float, Ge(0)] | None = None
    cpus: Annotated[float, Gt(0)] = 1.0

    def __post_init__(self) -> None:
        if self.gpus is not None and self.gpus > 1 and self.gpus != int(self.gpus):
            raise InvalidError(
                "gpus-no-share", f"gpus: expected a share of at most 1 or a whole number, given {self.gpus:g}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One cell of a sweep's table: trials that differ only in their seed, under the sweep's own names.

    Attributes:
        group_size: limit of the number of tasks learned at once; None: the rule decides.
        base: the variant with which the others of its entry are compared, if the entry is an ablation; else None.
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
        """The trials' blueprint; only drawn numbers differ between seeds."""
        return self.trials[0].blueprint()


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """A validated sweep.

    Attributes:
        name: its name in the store.
        store: the store that it names, a path or a URI, or None.
        cells: the cells, in the order of the file.
        resources: the resources of each trial.
        reference: the method with whose params/task the others are compared, or None.
        keep_weights: whether trained weights are stored with the contexts.
        changes: what the command line changed in the file, such as `methods.er.settings.buffer=200`.
        seeds: the seeds of the trials to run; None for all. The sweep requests all of its trials all the same.
        plugins: the files that it lists, the installed plug-ins that its trials use, and the base sets it defines.
    """

    name: str
    store: str | None
    cells: tuple[Cell, ...]
    resources: Resources
    reference: str | None = None
    keep_weights: bool = False
    changes: tuple[str, ...] = ()
    seeds: tuple[int, ...] | None = None
    plugins: tuple[Plugin, ...] = ()

    @property
    def chosen(self) -> tuple[Cell, ...]:
        """The cells, with the trials to run."""
        if self.seeds is None:
            return self.cells
        return tuple(
            dataclasses.replace(cell, trials=tuple(trial for trial in cell.trials if trial.seed in self.seeds))
            for cell in self.cells
        )

    @property
    def requested(self) -> tuple[TrialSpec, ...]:
        """All trials, whether to run now or not, in the order of the file."""
        return tuple(trial for cell in self.cells for trial in cell.trials)

    @property
    def trials(self) -> tuple[TrialSpec, ...]:
        """The trials to run, in the order of the file."""
        return tuple(trial for cell in self.chosen for trial in cell.trials)

    @property
    def title(self) -> str:
        """The name, and the chosen seeds."""
        return self.name if self.seeds is None else f"{self.name}, seeds {' '.join(map(str, self.seeds))}"

    def only(self, seeds: Sequence[int]) -> Sweep:
        """The same sweep, restricted to running the trials with these seeds.

        Raises:
            UserError: a seed is not the sweep's.
        """
        known = tuple(trial.seed for trial in self.cells[0].trials)
        if others := [seed for seed in seeds if seed not in known]:
            raise UserError(
                "unknown-seed",
                f"--seeds: expected seeds of the sweep {self.name}, which are {', '.join(map(str, known))}; given "
                f"{', '.join(map(str, others))}. Add others to its file, or set them: --set 'seeds=[0, 1, 2]'",
            )
        return dataclasses.replace(self, seeds=tuple(seed for seed in known if seed in seeds))

    def address(self, given: str | None = None) -> str:
        """The address of its store: the one given to a run, its own, or runs/<its name>."""
        return given or self.store or f"runs/{self.name}"

    @property
    def group_sizes(self) -> dict[str, int]:
        """The limit of the number of tasks learned at once, by trial; trials without a limit are left out."""
        return {
            trial.trial_id: cell.group_size
            for cell in self.cells
            if cell.group_size is not None
            for trial in cell.trials
        }

    def ratio(self, cell: Cell) -> float | None:
        """A cell's params/task relative to the reference on the same benchmark; None without a reference."""
        for other in self.cells:
            if other.method == self.reference and other.benchmark == cell.benchmark:
                return cell.blueprint.params_per_task / other.blueprint.params_per_task
        return None

    def manifest(self) -> Manifest:
        """The manifest that the store keeps: the trials that the sweep requests, and their names."""
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
                spec=RecordedSpec.of(cell.trials[0]).without_seed,
                base=cell.base,
                examples_kept=cell.blueprint.examples_kept,
            )
            for cell in self.cells
        )
        plugins = dict.fromkeys(
            ManifestPlugin(name=each.name, version=each.version, code=each.code)
            for each in self.plugins
            if not isinstance(each, DefinedSet)
        )
        return Manifest(
            name=self.name, reference=self.reference, cells=cells, changes=self.changes, plugins=tuple(plugins)
        )
