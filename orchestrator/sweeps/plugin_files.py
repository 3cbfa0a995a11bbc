"""Plug-ins of a sweep: the files that it lists, whose code runs only if the command names them too."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from crwn import plugins
from crwn.faults import codes_of
from crwn.paths import expanded
from crwn.plugins import FilePlugin, InstalledPlugin, PluginError
from crwn.trial_spec import used_by
from orchestrator.errors import UserError
from orchestrator.sweeps.faults import check_distinct
from orchestrator.sweeps.places import KeyPath
from orchestrator.sweeps.sweep import Cell
from orchestrator.sweeps.yaml_source import Source


def load(source: Source, listed: Any, named: Sequence[str | Path]) -> tuple[FilePlugin, ...]:
    """Run the plug-in files that both the sweep and the command name.

    If one of them is at fault, the rest of the sweep is not read: its names would seem unknown.

    Args:
        source: the sweep file, which collects faults.
        listed: what it has under `plugins`.
        named: the files that the command names.

    Raises:
        UserError: the command names a file that the sweep does not list, or one is at fault.
    """
    place: KeyPath = ("plugins",)
    names = listed if isinstance(listed, list) else []
    check_distinct(source, names, place)
    beside = {_resolved(source.file.parent / name): name for name in names if isinstance(name, str)}
    for file in named:
        if _resolved(file) not in beside:
            known = f"it lists {', '.join(map(str, names))}" if names else "it lists none"
            raise UserError(
                "plugin-not-listed",
                f"--plugin {file}: expected one of the plug-ins of {source.file}: {known}. Put the plug-in "
                f"into the sweep's folder, and list it in the sweep: plugins: [{Path(file).name}]",
            )
    chosen = {_resolved(file) for file in named}
    found = []
    for index, name in enumerate(names):
        if not isinstance(name, str):
            continue  # reported elsewhere
        file = source.file.parent / name
        if not plugins.FILE_NAME.fullmatch(name):
            source.fault(
                (*place, index),
                "plugin-name-unfit",
                f"expected the name of a Python file in the sweep's folder, given {name!r}",
            )
        elif _resolved(file) not in chosen:
            source.fault(
                (*place, index),
                "plugin-not-named",
                f"{name} is code, which runs only if you name it too: add --plugin {shlex.quote(str(file))}",
            )
        else:
            try:
                found.append(plugins.load_file(file))
            except PluginError as error:
                source.fault((*place, index), error.codes, str(error))
    if any(fault.path[:1] == place for fault in source.faults):
        source.raise_faults()
    return tuple(found)


def _resolved(file: str | Path) -> Path:
    try:
        return expanded(file).resolve()
    except (ValueError, OSError, RuntimeError) as error:
        raise UserError(codes_of(error, "file-unreadable"), f"--plugin {file}: {error}") from error


def installed(cells: Iterable[Cell]) -> tuple[InstalledPlugin, ...]:
    """The installed plug-ins that a sweep's trials use."""
    found = (plugin for cell in cells for plugin in used_by(cell.trials[0]))
    return tuple(dict.fromkeys(plugin for plugin in found if isinstance(plugin, InstalledPlugin)))
