"""Checks, before anything starts, whether Ray can start on this machine, or answers at $RAY_ADDRESS.

Ray itself fails late: with a traceback after half a minute to a quarter of an hour. This module does not import
Ray.
"""

from __future__ import annotations

import datetime
import os
import re
import resource
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from crwn.faults import Fault
from orchestrator.errors import UnavailableError

ADDRESS_VARIABLE = "RAY_ADDRESS"

SOCKET_PATH_BYTES = 103 if sys.platform == "darwin" else 107
"""Limit of the path of a Unix socket, in bytes: the field of the system's structure, without the terminating zero."""

MIN_FREE_BYTES = 4 * 2**20
"""Free space required on the disk of Ray's session folder, which holds its logs."""

MIN_OPEN_FILES = 256
"""Open files required per Ray process: it starts with 256, but not with 64."""

TOKEN_VARIABLES = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")
"""If one of these is set, Ray does not look for a token in the home folder."""

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 (the place of Ray's object store)

MIN_FREE_PROCESSES = 200
"""Processes and threads that the user's limit must leave free: a minimal Ray starts with 250 in total, not with 100."""

WAIT_SECONDS = 30.0
"""Seconds for which an unanswered request to a head is retried, since the head may have just started."""

CALL_SECONDS, PAUSE_SECONDS = 10.0, 1.0
"""Seconds that one request may take, and the pause before the next."""

QUESTION = "/ray.rpc.NodeInfoGcsService/CheckAlive"
"""A call that the head of every cluster supports; it takes an empty message."""

REFUSALS = {
    "refused": Fault("connection-refused", "the connection is refused"),
    "lookup": Fault("unknown-host", "no machine has this name"),
    "No route": Fault("no-route", "there is no route to it"),
    "unreachable": Fault("no-route", "its network is unreachable"),
}
"""Parts of gRPC's messages about an unreachable head, and what they mean."""

_HOST_AND_PORT = re.compile(r"(?:\[[0-9A-Fa-f:.%\w]+\]|[^\s:/@\[\]]+):(\d{1,5})")


def cluster_address() -> str | None:
    """The cluster named by $RAY_ADDRESS; None if this machine should start its own Ray."""
    address = os.environ.get(ADDRESS_VARIABLE, "").strip()
    return address if address not in ("", "local") else None


@dataclass(frozen=True, slots=True, kw_only=True)
class RayFolder:
    """The folder of sessions of a Ray that starts on this machine.

    Attributes:
        variable: the environment variable that names its parent; empty if none does.
        parent: the variable's value, or the system's default.
    """

    variable: str
    parent: str

    @property
    def path(self) -> Path:
        """The folder."""
        return Path(self.parent, "ray")

    @property
    def logs(self) -> Path:
        """The folder with the logs of the last session."""
        return self.path / "session_latest" / "logs"

    @property
    def recorded_address(self) -> Path:
        """The file in which `ray start` records a cluster's address for RAY_ADDRESS=auto."""
        return self.path / "ray_current_cluster"


def ray_folder() -> RayFolder:
    """The folder that Ray will choose."""
    variables = ("RAY_TMPDIR", "TMPDIR") if sys.platform.startswith("linux") else ("RAY_TMPDIR",)
    for name in variables:
        if name in os.environ:
            return RayFolder(variable=name, parent=os.environ[name])
    return RayFolder(variable="", parent="/tmp")  # noqa: S108 (Ray's own choice)


def check_start() -> None:
    """Check that nothing on this machine prevents a local Ray from starting.

    Raises:
        UnavailableError: something does; the message names everything, and what to do.
    """
    faults = [*_folder_faults(ray_folder()), *_shared_memory_faults(), *_limit_faults(), *_home_faults()]
    if faults:
        raise UnavailableError.of(faults, " ".join(faults) + " Or run the trials without Ray: --executor inline.")


def _home_faults() -> Iterator[Fault]:
    """Faults of the home folder, in which Ray creates a token unless it has one or needs none."""
    if os.environ.get("RAY_AUTH_MODE", "token") != "token" or any(os.environ.get(name) for name in TOKEN_VARIABLES):
        return
    token = Path.home() / ".ray" / "auth_token"
    there = next(path for path in (token, *token.parents) if os.path.lexists(path))
    if there != token and not (there.is_dir() and os.access(there, os.W_OK)):
        said = f"HOME: expected a home folder that can be written, for Ray's {token}; {there} cannot. Set HOME."
        yield Fault("home-not-writable", said)


def longest_parent() -> int:
    """The longest path, in bytes, of the parent of Ray's folder for which the paths of a session's sockets fit."""
    session = f"session_{datetime.datetime.now():%Y-%m-%d_%H-%M-%S_%f}_{os.getpid()}"  # noqa: DTZ005 (like Ray)
    return SOCKET_PATH_BYTES - len(f"/ray/{session}/sockets/plasma_store")


def _folder_faults(folder: RayFolder) -> Iterator[Fault]:
    variable = f"${folder.variable}" if folder.variable else "Ray's folder"
    shorter = "Name another one: export RAY_TMPDIR=/tmp."
    if not folder.parent.startswith("/"):
        said = f"{variable}: expected an absolute path, for Ray's session folder; given {folder.parent!r}. {shorter}"
        yield Fault("path-not-absolute", said)
        return
    given, allowed = len(os.fsencode(folder.path)) - len("/ray"), longest_parent()
    if given > allowed:
        yield Fault(
            "path-too-long",
            f"{variable}: expected a path of at most {allowed} bytes, given one of {given}: "
            f"{folder.parent}. Ray puts sockets a few folders below it, and a socket's path may have at most "
            f"{SOCKET_PATH_BYTES}. Use a shorter one: export RAY_TMPDIR=/tmp.",
        )
    there = next(path for path in (folder.path, *folder.path.parents) if os.path.lexists(path))
    if not there.is_dir():
        said = f"{variable}: expected a folder, for Ray's session folder below it; {there} is none. {shorter}"
        yield Fault("not-a-folder", said)
        return
    try:
        with tempfile.TemporaryFile(dir=there) as file:
            file.write(b"\0" * 2**12)
            file.flush()
        free = os.statvfs(there).f_bavail * os.statvfs(there).f_frsize
    except OSError as error:
        said = f"{variable}: expected to write Ray's session folder in {there}: {error.strerror}. {shorter}"
        yield Fault("folder-not-writable", said)
        return
    if free < MIN_FREE_BYTES:
        yield Fault(
            "disk-full",
            f"{variable}: expected {MIN_FREE_BYTES / 2**20:.0f} MiB free for Ray's session folder in {there}, found "
            f"{free / 2**20:.1f} MiB. Free some. {shorter}",
        )


def _shared_memory_faults() -> Iterator[Fault]:
    if not sys.platform.startswith("linux"):
        return
    if not (SHARED_MEMORY.is_dir() and os.access(SHARED_MEMORY, os.W_OK | os.X_OK)):
        yield Fault(
            "shared-memory-missing",
            f"{SHARED_MEMORY}: expected a writable folder in memory, for Ray's object store. Mount one, for example "
            "with docker run --shm-size=8gb.",
        )


def _limit_faults() -> Iterator[Fault]:
    _, files = resource.getrlimit(resource.RLIMIT_NOFILE)  # Ray raises the soft limit to this one
    if files != resource.RLIM_INFINITY and files < MIN_OPEN_FILES:
        yield Fault(
            "too-few-files",
            f"ulimit -n: expected at least {MIN_OPEN_FILES} open files for each of Ray's processes, given {files}. "
            "Raise it: ulimit -n 8192.",
        )
    processes, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    if processes != resource.RLIM_INFINITY and os.geteuid() != 0:  # it does not apply to root
        free = processes - _running_threads()
        if free < MIN_FREE_PROCESSES:
            yield Fault(
                "too-few-processes",
                f"ulimit -u: expected room for {MIN_FREE_PROCESSES} processes and threads of Ray, found {max(0, free)} "
                f"of {processes}. Raise the limit, or end other processes of yours.",
            )


def _running_threads() -> int:
    """The number of threads of this user's processes."""
    import psutil  # noqa: PLC0415 (it would slow down every command)

    processes = psutil.process_iter(["uids", "num_threads"])
    own = (process.info for process in processes if process.info["uids"] and process.info["uids"].real == os.getuid())
    return sum(info["num_threads"] or 0 for info in own)


def check_cluster(address: str) -> None:
    """Check that the head of a cluster answers.

    Args:
        address: the value of $RAY_ADDRESS.

    Raises:
        UnavailableError: it is not an address, nothing answers within half a minute, or another service answers.
    """
    if address == "auto":
        file = ray_folder().recorded_address
        try:
            recorded = file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError):
            return  # Ray looks for a head's processes on this machine, and reports if there are none
        if not _HOST_AND_PORT.fullmatch(recorded):
            raise UnavailableError(
                "address-missing",
                f"$RAY_ADDRESS=auto: expected a cluster's address in {file}, found none. To remove the file: ray stop.",
            )
        _wait_for_head(recorded, f"$RAY_ADDRESS=auto, which is {recorded} by {file}", os.environ)
        return
    shown = hide_credentials(address)
    found = _HOST_AND_PORT.fullmatch(address)
    if not found or not 0 < int(found[1]) < 2**16:
        client = " Ray's client (ray://) cannot run trials." if address.startswith("ray://") else ""
        raise UnavailableError(
            "address-invalid",
            "$RAY_ADDRESS: expected the address of a cluster's head as HOST:PORT, such as 10.0.0.1:6379, or auto on "
            f"the head; given {shown!r}.{client} From elsewhere: crwn submit. To use this machine: unset RAY_ADDRESS.",
        )
    _wait_for_head(address, f"$RAY_ADDRESS={shown}", os.environ)


def hide_credentials(address: str) -> str:
    """An address without the user and password before an @, fit for display."""
    scheme, separator, rest = address.rpartition("://")
    return f"{scheme}{separator}***@{rest.rpartition('@')[2]}" if "@" in rest else address


def _wait_for_head(address: str, name: str, environment: Mapping[str, str]) -> None:
    """Ask until the head answers; raises like `check_cluster`."""
    if environment.get("RAY_USE_TLS", "").lower() in ("1", "true"):
        return  # only Ray has the certificates
    until = time.monotonic() + WAIT_SECONDS
    while True:
        answer = ask(address, min(CALL_SECONDS, max(1.0, until - time.monotonic())))
        if answer.is_head:
            return
        if answer.is_other or time.monotonic() + PAUSE_SECONDS > until:
            tried = "" if answer.is_other else f" (tried for {WAIT_SECONDS:.0f} s)"
            raise UnavailableError(
                answer.why.codes,
                f"{name}: expected the head of a Ray cluster there, but {answer.why}{tried}. Start one with `ray start "
                "--head`, or `unset RAY_ADDRESS` to use this machine.",
            )
        time.sleep(PAUSE_SECONDS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The answer at an address.

    Attributes:
        is_head: whether it is the head of a cluster, or something that supports its calls.
        is_other: whether it is another service, which will not become a head.
        why: why it is not a head.
    """

    is_head: bool = False
    is_other: bool = False
    why: Fault = field(default=Fault("cluster-unreachable", ""))


def ask(address: str, seconds: float) -> Answer:
    """Ask once whether an address is a cluster's head."""
    import grpc  # noqa: PLC0415 (takes a tenth of a second, only for clusters)

    with grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)]) as channel:  # like Ray, use no proxy
        try:
            channel.unary_unary(QUESTION)(b"", timeout=seconds)
        except grpc.RpcError as error:
            code, details = error.code(), str(error.details())
        else:
            return Answer(is_head=True)
    if code == grpc.StatusCode.UNIMPLEMENTED or "HTTP/2" in details:
        said = "another service answers (a head's own port is 6379 unless `ray start` says so)"
        return Answer(is_other=True, why=Fault("not-a-cluster", said))
    if code == grpc.StatusCode.DEADLINE_EXCEEDED:
        return Answer(why=Fault("cluster-silent", "nothing answers"))
    if code == grpc.StatusCode.UNAVAILABLE:
        known = (why for words, why in REFUSALS.items() if words in details)
        other = Fault("cluster-unreachable", f"it cannot be reached: {details.splitlines()[0]}")
        return Answer(why=next(known, other))
    return Answer(is_head=True)  # it requires a token, or is busy; Ray's own report is better
