"""S3 on this machine, served by moto in this process, with simulated outages."""

from __future__ import annotations

import contextlib
import http.client
import logging
import threading
import time
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from tests.ports import free_port

BUCKET = "crwn-tests"

ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "not-to-be-seen",
    "AWS_EC2_METADATA_DISABLED": "true",  # requesting credentials takes seconds elsewhere
}


class ObjectStorage:
    """A server with one bucket, at the same port and with the same content after an outage."""

    def __init__(self) -> None:
        self.endpoint = f"127.0.0.1:{free_port()}"
        self._server: Any = None

    def start(self) -> None:
        from moto.server import ThreadedMotoServer

        logging.getLogger("werkzeug").setLevel(logging.ERROR)  # a line for every request
        host, port = self.endpoint.split(":")
        self._server = ThreadedMotoServer(ip_address=host, port=int(port), verbose=False)
        self._server.start()

    def stop(self) -> None:
        """Refuse connections from now on."""
        self._server.stop()

    def make_bucket(self) -> None:
        with contextlib.closing(http.client.HTTPConnection(self.endpoint)) as connection:
            connection.request("PUT", f"/{BUCKET}")
            assert connection.getresponse().status == http.HTTPStatus.OK

    def new_address(self) -> str:
        """An address where nothing listens."""
        return f"s3://{BUCKET}/{uuid.uuid4().hex[:8]}?scheme=http&endpoint_override={self.endpoint}"

    @contextlib.contextmanager
    def outage(self, seconds: float) -> Iterator[None]:
        """Refuse connections for this long from the start of a `with` block, which meanwhile continues."""
        self.stop()
        began = time.monotonic()
        timer = threading.Timer(seconds, self.start)
        timer.start()
        yield
        timer.join()
        assert time.monotonic() - began >= seconds


def serve() -> Iterator[ObjectStorage]:
    """The server for a session of tests, and the environment that reaches it."""
    pytest.importorskip("moto", reason="moto, which serves S3 for tests, is not installed: it is part of crwn[dev]")
    storage = ObjectStorage()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)
        patch.delenv("AWS_ENDPOINT_URL", raising=False)
        storage.start()
        storage.make_bucket()
        yield storage
        storage.stop()
