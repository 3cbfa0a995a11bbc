"""Where machines cannot be made, their tests skip and say what is needed; these run everywhere."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest

from tests.cluster.machines import whats_missing


def test_root_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the right to mount, the reason says so."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert whats_missing() == "needs root, to make network namespaces and mounts"


def test_packages_that_are_missing_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """All at once, by the names that Debian has for them."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    found = shutil.which
    monkeypatch.setattr(shutil, "which", lambda name, path: None if name in ("sshd", "rsync") else found("true"))
    assert whats_missing() == "needs the Debian packages openssh-server, rsync"


def test_namespaces_may_be_forbidden(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in most containers: the reason includes the system's message."""

    def refused(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        assert command[0] == "unshare"
        return subprocess.CompletedProcess(command, 1, "", "unshare: unshare failed: Operation not permitted\n")

    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(shutil, "which", lambda name, path: f"/usr/bin/{name}")
    monkeypatch.setattr(subprocess, "run", refused)
    assert whats_missing() == (
        "needs the right to make namespaces, mounts and bridges: unshare: unshare failed: Operation not permitted"
    )
