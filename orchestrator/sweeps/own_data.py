"""Base sets that a sweep defines: images of the user's own, in a folder by class or in Parquet files.

    data:
      birds: {kind: folder, path: photos/birds, size: 64}     # photos/birds/CLASS/*.jpg, relative to the sweep
      cells: {kind: parquet, path: cells/*.parquet, image: image, label: label, size: 32, channels: 1}
    benchmarks:
      split birds: {kind: split, base: birds, num_tasks: 5}

In a trial's identity, the label becomes a name of the content, `images-` and a checksum. A set is read, and decoded
into the cache, when the sweep is read: its images determine the trials, and faulty ones refuse the sweep.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from crwn.data import BASE_SETS, DataError
from crwn.data.own import DEFINITIONS, OwnImages, own_set
from crwn.faults import Fault, InvalidError
from crwn.paths import expanded
from crwn.plugins import DefinedSet
from orchestrator import display
from orchestrator.errors import UserError
from orchestrator.sweeps import typed
from orchestrator.sweeps.faults import check_label, has_looked_up, name_at
from orchestrator.sweeps.places import KeyPath
from orchestrator.sweeps.sweep import Cell, Sweep
from orchestrator.sweeps.yaml_source import Source
from orchestrator.waiting import decoding


def read(source: Source, defined: Mapping[str, Any]) -> dict[str, DefinedSet | None]:
    """The base sets that a sweep defines, added to the registry for the rest of this process.

    Args:
        source: the sweep file, which collects faults.
        defined: what it has under `data`.

    Returns:
        The sets by label; None for one with faults.
    """
    return {label: _read(source, label, settings, ("data", label)) for label, settings in defined.items()}


def _read(source: Source, label: str, settings: Any, place: KeyPath) -> DefinedSet | None:
    check_label(source, label, place)
    if label in BASE_SETS:
        source.fault(place, "name-taken", f"expected another label: crwn has a data set {label!r}")
        return None
    if not isinstance(settings, dict) or "kind" not in settings:
        message = f"expected settings such as {{kind: folder, path: photos, size: 64}}, given {settings!r}"
        source.fault(place, "wrong-type" if not isinstance(settings, dict) else "missing-key", message)
        return None
    kind = settings["kind"]
    if not isinstance(kind, str) or kind not in DEFINITIONS:
        source.unknown((*place, "kind"), name_at(source, (*place, "kind"), kind), DEFINITIONS)
        return None
    rest = {key: value for key, value in settings.items() if key != "kind"}
    definition = typed.read(source, DEFINITIONS[kind], rest, place)
    if definition is None:
        return None
    try:
        path = source.file.absolute().parent / expanded(definition.path)
        with decoding(label, display.console(stderr=True)) as on_progress:  # standard output is for results
            found = DefinedSet(base=own_set(definition, path, on_progress))
    except (DataError, InvalidError) as error:
        source.fault((*place, "path"), error.codes, str(error))
        return None
    found.load()
    return found


def has_resolved(
    source: Source, changes: dict[str, Any], place: KeyPath, sets: Mapping[str, DefinedSet | None]
) -> bool:
    """Replace the label of a set by its name in the settings of a benchmark; messages still show the label.

    Args:
        source: the sweep file, which collects faults.
        changes: the settings, with a base.
        place: the base's place in the file.
        sets: the sets that the sweep defines.

    Returns:
        False if the base is at fault, which is reported here or was before.
    """
    base = changes["base"]
    if not isinstance(base, str) or base not in sets:
        if sets and isinstance(base, str) and has_looked_up(source, BASE_SETS, base, place) and base not in BASE_SETS:
            own_names = {each.name for each in sets.values() if each is not None}
            source.unknown(place, base, [*(name for name in BASE_SETS if name not in own_names), *sets])
            return False
        return has_looked_up(source, BASE_SETS, base, place)
    found = sets[base]
    if found is not None:
        changes["base"] = found.name
        source.labels[found.name] = base
    return found is not None


def used(sets: Mapping[str, DefinedSet | None], cells: Iterable[Cell]) -> tuple[DefinedSet, ...]:
    """The sets that trials use, each once."""
    bases = {cell.trials[0].benchmark.base for cell in cells}
    found = {each.name: each for each in sets.values() if each is not None and each.name in bases}
    return tuple(found.values())


def check_for_elsewhere(sweep: Sweep) -> None:
    """Check that the sets of a sweep that goes to other machines are at paths that these may have.

    Raises:
        UserError: some have relative paths, which do not exist there.
    """
    faults = [
        Fault(
            "path-not-absolute",
            f"{source.path}: images do not go along to a cluster; expected them at an absolute path that its machines "
            f"have too, such as on a shared disk; given path: {source.definition.path}",
        )
        for plugin in sweep.plugins
        if isinstance(plugin, DefinedSet) and isinstance(source := plugin.base.source, OwnImages)
        if not Path(source.definition.path).is_absolute()
    ]
    if faults:
        raise UserError.of(faults, "\n".join(faults))
