"""What a machine that may run trials has and reaches, as it finds out itself."""

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

from crwn.data import BASE_SETS, DataError, Datasets
from orchestrator.store.address import open_files
from orchestrator.store.files import TEMPORARY, Files

VERSIONS = ("crwn", "torch", "torchvision", "numpy", "pyarrow", "ray")
"""Packages whose versions must agree."""
ABSENT = "found in none of "
"""What a report says of a data set begins so where it is not there, rather than damaged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Questions:
    """What a machine is asked.

    Attributes:
        store: the store's address.
        probe: a file that the driver has put there.
        bases: the data sets that trials read.
        data_roots: the folders to look for them in.
        gpus: whether trials want GPUs.
    """

    store: str
    probe: str
    bases: tuple[str, ...]
    data_roots: tuple[Path, ...]
    gpus: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeReport:
    """What a machine answers.

    Attributes:
        host: its name.
        versions: of Python and of packages; empty for one that is not installed.
        sees_probe: whether the driver's file is in the store as it sees it.
        answer: a file that it has put there for the driver, if it could.
        store_error: why it could not.
        free_disk: bytes on the disk that the store is on, there; on object storage, on that of this folder.
        data_faults: why a data set cannot be read, by its name.
        usable_gpus: GPUs that torch can use; 0 where none was asked for.
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
    """Answer, on the machine that this process runs on."""
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
    """The name of a file written, or why none could be. No folder is made: one that is not there is not shared."""
    name = f"{probe}.{uuid.uuid4().hex[:8]}{TEMPORARY}"
    try:
        if files.kind() == "absent":
            return None, "there is no such folder"
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
    """The folder, or the nearest one above it that is there."""
    return next(folder for folder in (path, *path.parents) if folder.is_dir())


def _data_faults(questions: Questions) -> dict[str, str]:
    """What a trial would meet here. Photographs are decoded, which is then done, since that shows most faults."""
    data, faults = Datasets(BASE_SETS, questions.data_roots), {}
    for name in questions.bases:
        try:
            if BASE_SETS[name].is_embedded:
                continue
            if data.find(name) is None:
                faults[name] = ABSENT + ", ".join(map(str, questions.data_roots))
            else:
                data.load(name)
        except (DataError, OSError) as error:
            faults[name] = str(error)
    return faults


def _usable_gpus() -> int:
    return len(gpu_memory())


def gpu_memory() -> list[int]:
    """Bytes of each GPU that torch can use on this machine."""
    # A process that was given no GPU by its scheduler would otherwise see none.
    os.environ.pop("CUDA_VISIBLE_DEVICES", None)
    import torch  # noqa: PLC0415 (seconds, only to look at GPUs)

    return [torch.cuda.get_device_properties(number).total_memory for number in range(torch.cuda.device_count())]
