"""Ray's dashboard, which accepts jobs: connecting to it, and turning its errors into user errors."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import TypeVar
from urllib.parse import urlsplit

import requests
from ray.exceptions import AuthenticationError
from ray.job_submission import JobSubmissionClient

from orchestrator.errors import UserError

_Value = TypeVar("_Value")

CONNECT_SECONDS = 10.0
ANSWER_SECONDS = 30.0
"""Seconds that a dashboard may take to identify itself."""

CHATTY = ("ray.dashboard.modules.dashboard_sdk", "ray.dashboard.modules.job.sdk", "ray._private.runtime_env")
"""Loggers of Ray's client that report each upload and connection."""

OVERRIDES = ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS")
"""For Ray's client, these take precedence over the given address."""

TOKEN_PLACES = "It is read from $RAY_AUTH_TOKEN, else from the file $RAY_AUTH_TOKEN_PATH, else from ~/.ray/auth_token."  # noqa: S105


def connect(address: str) -> JobSubmissionClient:
    """A client for the cluster whose dashboard is at an address.

    Raises:
        UserError: the address is invalid, nothing answers, it is not Ray, or it requires another token.
    """
    parts = urlsplit(address)
    if "@" in parts.netloc:  # before anything that repeats it
        raise UserError(
            "password-shown",
            "--address: expected the address of Ray's dashboard without a user name or password, since the "
            "commands that are printed repeat it. Use a tunnel instead, such as ssh -N -L 8265:127.0.0.1:8265 HEAD",
        )
    try:
        port = parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:
        port = 0
    if parts.scheme not in ("http", "https") or not parts.hostname or not port:
        raise UserError(
            "address-invalid",
            f"--address: expected the address of Ray's dashboard, such as http://127.0.0.1:8265; given {address!r}",
        )
    for name in CHATTY:
        logging.getLogger(name).setLevel(logging.ERROR)
    before = {name: os.environ.pop(name) for name in OVERRIDES if name in os.environ}
    try:
        return within(ANSWER_SECONDS, lambda: _client(address, parts.hostname, port))
    except OSError as error:
        raise unreachable(address, error) from error
    finally:
        os.environ.update(before)


def _client(address: str, host: str | None, port: int) -> JobSubmissionClient:
    # Ray's own client would wait for minutes for a machine that does not answer
    socket.create_connection((host, port), timeout=CONNECT_SECONDS).close()
    with explained(address):
        return JobSubmissionClient(address)


def within(seconds: float, call: Callable[[], _Value]) -> _Value:
    """Run a call that has no timeout of its own, such as a name lookup or a request of Ray's client, with one.

    Raises:
        TimeoutError: it takes longer. It continues in a daemon thread, which does not keep the process alive.
    """
    future: Future[_Value] = Future()

    def answer() -> None:
        try:
            future.set_result(call())
        except Exception as error:  # noqa: BLE001 (raised where it was asked for)
            future.set_exception(error)

    threading.Thread(target=answer, daemon=True).start()
    try:
        return future.result(timeout=seconds)
    except TimeoutError as error:
        raise TimeoutError(str(error) or f"nothing answers within {seconds:.0f} s") from error


def unreachable(address: str, error: BaseException) -> UserError:
    """The error if nothing answers at an address."""
    return UserError(
        "cluster-unreachable",
        f"--address: expected Ray's dashboard at {address}, but it cannot be reached: {error}. Check that the cluster "
        "is up, and the tunnel to its head too (ssh -N -L 8265:127.0.0.1:8265 HEAD).",
    )


@contextlib.contextmanager
def explained(address: str) -> Iterator[None]:
    """Turn the errors of Ray's client into user errors.

    Raises:
        UserError: instead of them.
    """
    try:
        yield
    except AuthenticationError as error:
        is_set = os.environ.get("RAY_AUTH_MODE", "").lower() == "token"
        given = "none or a different one was given" if is_set else "none was given: set RAY_AUTH_MODE=token"
        raise UserError(
            "token-refused", f"--address: the cluster at {address} expects its token, but {given}. {TOKEN_PLACES}"
        ) from error
    except (ConnectionError, requests.ConnectionError, requests.Timeout) as error:
        raise unreachable(address, error) from error
    except (RuntimeError, requests.RequestException, ValueError, KeyError) as error:
        raise UserError(
            "not-a-dashboard",
            f"--address: expected Ray's dashboard at {address}, but the server there refused, or is another one: "
            f"{type(error).__name__}: {error}",
        ) from error
