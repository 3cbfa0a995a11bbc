"""Reasons why Ray cannot start, or a cluster does not respond, are reported before anything starts."""

from __future__ import annotations

import http.server
import os
import resource
import socket
import threading
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path

import grpc
import pytest

from orchestrator.errors import UnavailableError
from orchestrator.execution import reaching_ray
from orchestrator.execution.executors import default_executor
from orchestrator.execution.reaching_ray import (
    QUESTION,
    SOCKET_PATH_BYTES,
    check_cluster,
    check_start,
    cluster_address,
    hide_credentials,
    longest_parent,
    ray_folder,
)
from tests.refusals import refused


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which Ray starts: its user's variables and limits are not in the way."""
    for name in ("RAY_ADDRESS", "RAY_TMPDIR", "TMPDIR", "RAY_USE_TLS"):
        monkeypatch.delenv(name, raising=False)
    limits = {resource.RLIMIT_NOFILE: (1024, 4096), resource.RLIMIT_NPROC: (resource.RLIM_INFINITY,) * 2}
    monkeypatch.setattr(resource, "getrlimit", lambda limit: limits[limit])
    monkeypatch.setattr(reaching_ray, "SHARED_MEMORY", tmp_path)
    monkeypatch.setattr(reaching_ray, "longest_parent", lambda: 300)  # the folders of tests are long


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A head is asked only once."""
    monkeypatch.setattr(reaching_ray, "WAIT_SECONDS", 0.0)


def refusal(*codes: str) -> str:
    """The message, in one line, why Ray cannot start here for reasons with these codes, with an alternative."""
    with refused(UnavailableError, *codes, says="--executor inline") as caught:
        check_start()
    message = str(caught.value)
    assert "\n" not in message
    return message


# Starting Ray on this machine


def test_a_home_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray creates its token there, unless one exists or a variable names one."""
    monkeypatch.setenv("HOME", "/dev/null")
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    assert "/dev/null/.ray/auth_token" in refusal("home-not-writable")
    with monkeypatch.context() as given:
        given.setenv("RAY_AUTH_TOKEN", "secret")
        check_start()
    monkeypatch.setenv("HOME", str(tmp_path))
    check_start()


def test_nothing_is_in_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if the folder does not exist yet, since Ray creates it; the check leaves nothing behind."""
    check_start()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "not" / "yet"))
    check_start()
    assert list(tmp_path.iterdir()) == []


def test_the_longest_folder_is_what_the_sockets_leave_of_a_path() -> None:
    """By hand: the system's limit less /ray/session_, 26 of a date, _, this process's id and /sockets/plasma_store."""
    assert longest_parent() == SOCKET_PATH_BYTES - 13 - 26 - 1 - len(str(os.getpid())) - 21


@pytest.mark.parametrize("variable", ["TMPDIR", "RAY_TMPDIR"])
@pytest.mark.parametrize(("length", "is_short"), [(10, True), (11, False), (95, False)])
def test_a_long_folder_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str, length: int, *, is_short: bool
) -> None:
    """The error has the variable, the limit, the length and a solution; one that just fits is accepted."""
    base = len(f"{tmp_path}/")
    monkeypatch.setattr(reaching_ray, "longest_parent", lambda: base + 10)
    if variable == "RAY_TMPDIR":
        monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv(variable, f"{tmp_path}/{'x' * length}/")  # a slash at the end costs nothing
    if is_short:
        check_start()
        return
    message = refusal("path-too-long")
    for fact in (f"${variable}: ", f" {base + 10} ", f" {base + length}:", "RAY_TMPDIR=/tmp"):
        assert fact in message


def test_a_folder_is_measured_in_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the system does: a letter with an accent has two."""
    base = len(f"{tmp_path}/")
    monkeypatch.setattr(reaching_ray, "longest_parent", lambda: base + 10)
    monkeypatch.setenv("TMPDIR", f"{tmp_path}/éééééé")
    assert f" {base + 12}: {tmp_path}/éééééé" in refusal("path-too-long")


def test_rays_own_variable_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A long $TMPDIR is no fault if $RAY_TMPDIR is short."""
    monkeypatch.setattr(reaching_ray, "longest_parent", lambda: len(str(tmp_path)))
    monkeypatch.setenv("TMPDIR", f"{tmp_path}/{'x' * 90}")
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    check_start()


@pytest.mark.parametrize("value", ["", "tmp", "./tmp", "~/tmp"])
def test_a_relative_folder_is_refused(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    """Ray's processes do not find one another in it; an empty variable is one too."""
    monkeypatch.setenv("TMPDIR", value)
    message = refusal("path-not-absolute")
    assert "$TMPDIR: " in message
    assert repr(value) in message


def test_a_file_is_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the folder itself nor one above it may be a file or a dangling link."""
    file, link = tmp_path / "file", tmp_path / "link"
    file.write_text("")
    link.symlink_to(tmp_path / "nowhere")
    for path, culprit in ((file, file), (file / "below", file), (link, link)):
        monkeypatch.setenv("TMPDIR", str(path))
        message = refusal("not-a-folder")
        assert "$TMPDIR: " in message
        assert f" {culprit} " in message


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), OSError(28, "No space left on device")])
def test_a_folder_that_cannot_be_written_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError
) -> None:
    """Writing is tried; the error has the system's reason."""

    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(reaching_ray.tempfile, "TemporaryFile", fail)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    message = refusal("folder-not-writable")
    assert f" {tmp_path}: {error.strerror}." in message


def test_a_full_disk_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If there is less space than its logs take."""
    found = os.statvfs(tmp_path)
    full = type("Full", (), {"f_bavail": 2**20, "f_frsize": 1, "f_bsize": found.f_bsize})
    monkeypatch.setattr(os, "statvfs", lambda _: full)
    message = refusal("disk-full")
    assert " 4 MiB " in message
    assert " /tmp" in message


def test_all_that_is_in_the_way_is_said_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder, shared memory that is not there, too few open files and processes."""
    monkeypatch.setenv("TMPDIR", "tmp")
    monkeypatch.setattr(reaching_ray, "SHARED_MEMORY", tmp_path / "shm")
    monkeypatch.setattr(resource, "getrlimit", lambda _: (128, 128))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    message = refusal("path-not-absolute", "shared-memory-missing", "too-few-files", "too-few-processes")
    for fact in ("$TMPDIR: ", f"{tmp_path / 'shm'}: ", "ulimit -n: ", " 128", "ulimit -u: "):
        assert fact in message


def test_rays_limit_on_processes_does_not_bind_root(monkeypatch: pytest.MonkeyPatch) -> None:
    """The system does not apply the limit to root."""
    monkeypatch.setattr(resource, "getrlimit", lambda limit: (4096 if limit == resource.RLIMIT_NOFILE else 10,) * 2)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    check_start()


# Which cluster


@pytest.mark.parametrize(
    ("value", "address"),
    [(None, None), ("", None), (" ", None), ("local", None), ("auto", "auto"), (" head:6379 ", "head:6379")],
)
def test_what_the_variable_names(monkeypatch: pytest.MonkeyPatch, value: str | None, address: str | None) -> None:
    """Nothing, an empty one and `local` are this machine; with a cluster a single trial runs there."""
    if value is not None:
        monkeypatch.setenv("RAY_ADDRESS", value)
    assert cluster_address() == address
    assert default_executor(1) == ("ray" if address else "inline")


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("ray://head:10001", "ray://head:10001"),
        ("ray://me:secret@head:10001", "ray://***@head:10001"),
        ("http://me:secret@head:8265/jobs", "http://***@head:8265/jobs"),
        ("me:secret@head:6379", "***@head:6379"),
        ("secret@with@head:6379", "***@head:6379"),
        ("head", "head"),
        ("head:", "head:"),
        ("head:port", "head:port"),
        ("head:0", "head:0"),
        ("head:65536", "head:65536"),
        ("::1:6379", "::1:6379"),
    ],
)
def test_what_is_no_address_is_refused(address: str, shown: str) -> None:
    """Before anything is asked, and without a user or a password; Ray's client is named."""
    assert hide_credentials(address) == shown
    with refused(UnavailableError, "address-invalid", says=["$RAY_ADDRESS", "HOST:PORT", repr(shown)]) as caught:
        check_cluster(address)
    assert "secret" not in str(caught.value)
    assert ("(ray://)" in str(caught.value)) == address.startswith("ray://")


@pytest.fixture
def grpc_server() -> Iterator[grpc.Server]:
    """A server without any service, to which a test adds some."""
    server = grpc.server(futures.ThreadPoolExecutor(1))
    yield server
    server.stop(None).wait()


def head(code: grpc.StatusCode) -> grpc.GenericRpcHandler:
    """A server that answers as a head does."""

    def answer(_: bytes, context: grpc.ServicerContext) -> bytes:
        if code != grpc.StatusCode.OK:
            context.abort(code, "as a test says")
        return b""

    service, method = QUESTION.strip("/").split("/")
    return grpc.method_handlers_generic_handler(service, {method: grpc.unary_unary_rpc_method_handler(answer)})


@pytest.mark.parametrize("code", [grpc.StatusCode.OK, grpc.StatusCode.UNAUTHENTICATED])
def test_a_head_that_answers_is_one(grpc_server: grpc.Server, code: grpc.StatusCode) -> None:
    """Also one that requires a token, for which Ray's own message says what to do."""
    grpc_server.add_generic_rpc_handlers((head(code),))
    port = grpc_server.add_insecure_port("127.0.0.1:0")
    grpc_server.start()
    check_cluster(f"127.0.0.1:{port}")


def test_a_head_that_is_being_started_is_waited_for(grpc_server: grpc.Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its port is closed at first."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]

    def start(_: float) -> None:
        grpc_server.add_generic_rpc_handlers((head(grpc.StatusCode.OK),))
        grpc_server.add_insecure_port(f"127.0.0.1:{port}")
        grpc_server.start()
        monkeypatch.setattr(reaching_ray.time, "sleep", lambda _: None)

    monkeypatch.setattr(reaching_ray.time, "sleep", start)
    check_cluster(f"127.0.0.1:{port}")


def test_a_dead_address_is_said(at_once: None) -> None:
    """If nothing listens there; the error has the variable, the address and two solutions."""
    facts = ["$RAY_ADDRESS=127.0.0.1:1: ", " 0 s", "`ray start --head`", "`unset RAY_ADDRESS`"]
    with refused(UnavailableError, "connection-refused", says=facts):
        check_cluster("127.0.0.1:1")


def test_an_unknown_name_is_said(at_once: None) -> None:
    """A typo."""
    with refused(UnavailableError, "unknown-host", says="nosuch.invalid:6379"):
        check_cluster("nosuch.invalid:6379")


def test_a_head_that_is_silent_is_said(at_once: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A firewall that drops packets, or a process that hangs: it accepts connections and never answers."""
    monkeypatch.setattr(reaching_ray, "CALL_SECONDS", 0.2)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        with refused(UnavailableError, "cluster-silent"):
            check_cluster(f"127.0.0.1:{silent.getsockname()[1]}")


def test_another_service_is_said_at_once(grpc_server: grpc.Server) -> None:
    """An HTTP server such as the dashboard, or another port of Ray's own: neither becomes a head by waiting."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    other = grpc_server.add_insecure_port("127.0.0.1:0")
    grpc_server.start()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        for port in (server.server_port, other):
            with refused(UnavailableError, "not-a-cluster", says=f":{port}"):
                check_cluster(f"127.0.0.1:{port}")
        server.shutdown()


def test_the_address_of_an_earlier_cluster_is_said(
    at_once: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`auto` follows what the last `ray start` left; with nothing left, Ray itself looks around."""
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    check_cluster("auto")
    file = ray_folder().recorded_address
    file.parent.mkdir()
    file.write_text("127.0.0.1:1\n")
    with refused(UnavailableError, "connection-refused", says=["$RAY_ADDRESS=auto", "127.0.0.1:1", str(file)]):
        check_cluster("auto")
    file.write_text("half a wri")
    with refused(UnavailableError, "address-missing", says=["$RAY_ADDRESS=auto", str(file), "ray stop"]):
        check_cluster("auto")


def test_a_head_with_certificates_is_left_to_ray(at_once: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only Ray can talk to it."""
    monkeypatch.setenv("RAY_USE_TLS", "1")
    check_cluster("127.0.0.1:1")
