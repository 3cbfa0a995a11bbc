"""Surveys a machine that may run trials: what it has and what it can reach, as it sees it."""

from __future__ import annotations

import os
import platform
import shutil
import socket
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from crwn.benchmarks.features import WeightsFile
from crwn.data import BASE_SETS, DataError, Datasets
from crwn.plugins import Plugin
from orchestrator.store.address import open_files
from orchestrator.store.files import TEMPORARY, Files

VERSIONS = ("crwn", "torch", "torchvision", "numpy", "pyarrow", "ray")
"""Packages whose versions must agree between machines."""
ABSENT = "found in none of "
"""Prefix of a report on a data set that is missing, rather than damaged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Questions:
    """The questions to a machine; unpickling them loads the plug-ins there.

    Attributes:
        plugins: the plug-ins that trials use.
        store: the store's address.
        probe: a file that the driver has written to the store.
        bases: the data sets that trials read.
        data_roots: the folders to search for them.
        gpus: whether trials need GPUs.
        weights: the files of trained weights that trials read.
    """

    plugins: tuple[Plugin, ...] = ()
    store: str
    probe: str
    bases: tuple[str, ...]
    data_roots: tuple[Path, ...]
    gpus: bool
    weights: tuple[WeightsFile, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeReport:
    """A machine's answers.

    Attributes:
        host: the machine's name.
        versions: versions of Python and of packages; empty for a package that is not installed.
        sees_probe: whether it sees the driver's file in the store.
        answer: the file that it has written to the store for the driver, if it could.
        store_error: why it could not.
        free_disk: free bytes on its disk with the store; for object storage, on the disk of the working folder.
        data_faults: why a data set cannot be read, by name.
        usable_gpus: number of GPUs that torch can use; 0 if trials need none.
    """

    host: str
    versions: Mapping[str, str]
    sees_probe: bool
    answer: str | None
    store_error: str | None
    free_disk: int
    data_faults: Mapping[str, str]
    usable_gpus: int


def look(questions: Questions) -> NodeReport:
    """Answer the questions for the machine that this process runs on."""
    files = open_files(questions.store)
    answer, store_error = _write_answer(files, questions.probe)
    return NodeReport(
        host=socket.gethostname(),
        versions={"python": platform.python_version(), **{name: _version(name) for name in VERSIONS}},
        sees_probe=_sees(files, questions.probe),
        answer=answer,
        store_error=store_error,
        free_disk=shutil.disk_usage(_existing(files.beside)).free,
        data_faults=_data_faults(questions),
        usable_gpus=_usable_gpus() if questions.gpus else 0,
    )


def _write_answer(files: Files, probe: str) -> tuple[str | None, str | None]:
    """The name of the file written, or why it could not be. No folder is created: a missing one is not shared."""
    name = f"{probe}.{uuid.uuid4().hex[:8]}{TEMPORARY}"
    try:
        if files.kind() == "absent":
            return None, "no such folder"
        files.write(name, b"")
    except OSError as error:
        return None, f"{type(error).__name__}: {error}"
    return name, None


def _sees(files: Files, probe: str) -> bool:
    try:
        return files.exists(probe)
    except OSError:
        return False


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def _existing(path: Path) -> Path:
    """The folder, or its nearest existing parent."""
    return next(folder for folder in (path, *path.parents) if folder.is_dir())


def _data_faults(questions: Questions) -> dict[str, str]:
    """The faults of data sets and of files of weights on this machine.

    Photographs are decoded, which shows most faults, and then cached.
    """
    data, faults = Datasets(BASE_SETS, questions.data_roots), {}
    for name in questions.bases:
        try:
            if BASE_SETS[name].is_embedded:
                continue
            if data.find(name) is None:
                faults[name] = ABSENT + ", ".join(map(str, data.places(name)))
            else:
                data.load(name)
        except (DataError, OSError) as error:
            faults[name] = str(error)
    for file in questions.weights:
        try:
            file.find(questions.data_roots)
        except DataError as error:
            faults[file.pattern] = str(error)
    return faults


def _usable_gpus() -> int:
    return len(gpu_memory())


def gpu_memory() -> list[int]:
    """Memory of each GPU that torch can use on this machine, in bytes."""
    # Otherwise, a process to which the scheduler assigned no GPU would see none.
    os.environ.pop("CUDA_VISIBLE_DEVICES", None)
    import torch  # noqa: PLC0415 (takes seconds, only to look at GPUs)

    return [torch.cuda.get_device_properties(number).total_memory for number in range(torch.cuda.device_count())]
