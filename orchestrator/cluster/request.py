"""A sweep to run on a cluster: the checks before any cluster is contacted, and the commands that describe it."""

from __future__ import annotations

import hashlib
import posixpath
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from crwn.faults import InvalidError
from crwn.plugins import FilePlugin
from orchestrator.display import hide_password
from orchestrator.errors import UserError
from orchestrator.execution.other_code import check_names
from orchestrator.execution.running import Options, check_secrets, chosen_executor, chosen_resources
from orchestrator.store.address import SCHEMES, check_address
from orchestrator.store.store import Store
from orchestrator.sweeps import own_data
from orchestrator.sweeps.changes import OPTION
from orchestrator.sweeps.sweep import Sweep


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A sweep to run on a cluster.

    Attributes:
        sweep: the validated sweep.
        file: the file that it was read from.
        store: the store's address on the cluster.
        options: the options of the run.
    """

    sweep: Sweep
    file: Path
    store: str
    options: Options

    @property
    def plugin_files(self) -> tuple[FilePlugin, ...]:
        """The sweep's plug-in files, which are sent with the job."""
        return tuple(plugin for plugin in self.sweep.plugins if isinstance(plugin, FilePlugin))

    @property
    def stem(self) -> str:
        """The prefix of the ids of all jobs for this sweep and store."""
        digest = hashlib.sha256(f"{self.sweep.name}\n{self.store}".encode()).hexdigest()
        return f"crwn-{self.sweep.name}-{digest[:8]}-"

    @property
    def trials(self) -> str:
        """A checksum of the trials and the plug-ins that compute them, independent of their order."""
        asked = sorted(trial.trial_id for trial in self.sweep.trials)
        asked += sorted(f"{plugin.name} {plugin.version}" for plugin in self.sweep.plugins)
        return hashlib.sha256("\n".join(asked).encode()).hexdigest()

    def run(self, folder: Path | None = None) -> list[str]:
        """The words of the command that the job runs.

        Args:
            folder: the folder with copies of the sweep and its plug-ins; None if the command can use the originals.
        """
        # Use Ray even for few trials: the head may have neither GPUs nor spare cores.
        at = Path() if folder is None else folder
        return [
            *("crwn", "run", str(at / self.file.name), "--out", self.store, "--executor", "ray"),
            *(word for plugin in self.plugin_files for word in ("--plugin", str(at / plugin.name))),
            *self._options(),
        ]

    def command(self, *where: str) -> str:
        """The command that submits this.

        Args:
            where: the options that name the cluster.
        """
        uri = self.options.tracking_uri
        tracking = [] if uri is None else ["--tracking-uri", hide_password(uri)]
        words = ["crwn", "submit", str(self.file), *where, "--out", self.store]
        words += [word for plugin in self.plugin_files for word in ("--plugin", plugin.place)]
        return shlex.join([*words, *self._options(), *tracking])

    def _options(self) -> Iterator[str]:
        """The options that `submit` and `run` share."""
        if self.sweep.seeds is not None:
            yield from ("--seeds", ",".join(map(str, self.sweep.seeds)))
        for change in self.sweep.changes:
            yield from (OPTION, change)
        for name in ("data_root", "gpus", "cpus"):
            value = getattr(self.options, name)
            if value is not None:
                yield from (f"--{name.replace('_', '-')}", str(value))
        for name in self.options.recompute:
            yield from ("--recompute", name)
        if not self.options.tracking:
            yield "--no-tracking"


def request(sweep: Sweep, file: Path, out: str | None, options: Options) -> Request:
    """Check a submission without contacting any cluster.

    Raises:
        UserError: some part of it cannot work there.
    """
    _check_options(sweep, options)
    where = "an absolute path that all machines of the cluster share, such as /shared/runs/NAME, or s3://bucket/prefix"
    given = out if out is not None else None if sweep.store is None else str(sweep.store)
    if given is None:
        raise UserError(
            "store-not-named", f"--out: expected the place of the store on the cluster, {where}; given nothing"
        )
    source = "--out" if out is not None else f"{file}: store"
    is_elsewhere = _is_elsewhere(given, source)
    if not (given.startswith("/") or is_elsewhere):
        raise UserError(
            "path-not-absolute",
            f"{source}: expected {where}; given {given!r}. A job's own folder is deleted with the job.",
        )
    if options.data_root is not None and not options.data_root.startswith("/"):
        raise UserError(
            "path-not-absolute",
            f"--data-root: expected an absolute path on the cluster's machines; given {options.data_root!r}",
        )
    return Request(sweep=sweep, file=file, store=given if is_elsewhere else posixpath.normpath(given), options=options)


def request_here(sweep: Sweep, file: Path, out: str | None, options: Options) -> Request:
    """Check a submission to machines that see this machine's files at the same paths.

    Its store is that of `crwn run` here: the one named, the sweep's, or runs/<name>.

    Raises:
        UserError: some part of it cannot work there.
    """
    _check_options(sweep, options)
    check_secrets(options, "ray")
    given = out or (f"runs/{sweep.name}" if sweep.store is None else str(sweep.store))
    is_elsewhere = _is_elsewhere(given, "--out" if out else f"{file}: store")
    store = given if is_elsewhere else Store(given).address
    return Request(sweep=sweep, file=file, store=store, options=options)


def _check_options(sweep: Sweep, options: Options) -> None:
    """Checks that do not depend on the cluster; raises like `request`."""
    own_data.check_for_elsewhere(sweep)
    chosen_resources(sweep, options)
    check_names(sweep, options.recompute)
    chosen_executor(options, len(sweep.trials))


def _is_elsewhere(store: str, source: str) -> bool:
    """Whether a store is on object storage; raises like `request` if the address is invalid."""
    try:
        check_address(store)
    except InvalidError as error:
        raise UserError(error.codes, f"{source}: {error}.") from error
    return urlsplit(store).scheme in SCHEMES
