"""Fixtures shared by the tests of crwn. The orchestrator's tests have their own conftest.py."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

from crwn.data import BASE_SETS, Datasets
from tests import object_storage
from tests.object_storage import ObjectStorage
from tests.plugged import no_traces


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder with the real data sets; a test that uses it is marked `data`."""
    value = os.environ.get("CRWN_DATA")
    if not value:
        pytest.skip("needs real data sets: set CRWN_DATA to the folder that holds them")
    if not Path(value).is_dir():
        pytest.skip(f"needs real data sets: CRWN_DATA is {value!r}, which is no folder")
    return Path(value)


@pytest.fixture(scope="session")
def digits() -> Datasets:
    """The base sets on a machine without files: only those embedded in a library, `digits` among them."""
    return Datasets(BASE_SETS, roots=())


@pytest.fixture(scope="session")
def storage() -> Iterator[ObjectStorage]:
    """S3 on this machine; tests that use it are skipped if its server is not installed."""
    yield from object_storage.serve()


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Outside a trial, torch also uses one thread: small products are faster, and bits are reproducible."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def no_plugins() -> Iterator[None]:
    """Unload the plug-ins that a test loaded."""
    with no_traces():
        yield


FIRST = (
    "Ray",
    "MLflow",
    "processes",
    "tests/contracts/test_methods.py",
    "tests/orchestrator/tracking/test_tracker.py",
    "tests/crwn/test_resume.py",
    "tests/orchestrator/test_strangers.py",
    "tests/orchestrator/test_cli.py",
    "tests/crwn/test_devices.py",
    "tests/test_layering.py",
)
"""The longest groups of tests: they start first, and the other processes share the rest."""


def _chain_of(nodeid: str) -> str:
    """The group of tests that share a process: a file's tests, or all tests with Ray, with MLflow, or with kills.

    The latter mostly wait, and would disturb each other in parallel.
    """
    if _is_with_ray(nodeid):
        return "Ray"
    if nodeid.startswith("tests/integration/test_tracking"):
        return "MLflow"
    return "processes" if nodeid.startswith("tests/integration/") else nodeid.partition("::")[0]


def _place_of(chain: str) -> int:
    return FIRST.index(chain) if chain in FIRST else len(FIRST)


class Scheduling(LoadScopeScheduling):
    """Assigns tests to processes."""

    def _split_scope(self, nodeid: str) -> str:
        return _chain_of(nodeid)


def _is_with_ray(nodeid: str) -> bool:
    return nodeid.endswith("[ray]") or "/test_ray_" in nodeid


def pytest_configure(config: pytest.Config) -> None:
    """Give every process its share of the cores.

    Ray's workers, since they are the longest chain and Ray lets all else go first. And torch one thread for a process
    of several: two threads each, waiting for one another on two cores, made small products fifty times slower.
    """
    os.environ.setdefault("RAY_worker_niceness", "0")
    if hasattr(config, "workerinput"):
        os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Scheduling:
    """Register it with xdist."""
    return Scheduling(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start with the longest groups; attach the reasons of slow tests for the summary.

    Tests with Ray inherit files left open by earlier ones.
    """
    items.sort(key=lambda item: _place_of(_chain_of(item.nodeid)))
    for item in items:
        if _is_with_ray(item.nodeid):  # Ray leaves files open, which are noticed in a later test
            item.add_marker(pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"))
        if marker := item.get_closest_marker("slow"):
            item.user_properties.append(("slow", marker.kwargs["reason"]))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print why the slow tests are slow."""
    reports = [*terminalreporter.stats.get("passed", []), *terminalreporter.stats.get("failed", [])]
    reasons = {report.nodeid: (report.duration, dict(report.user_properties).get("slow")) for report in reports}
    slow = [(seconds, nodeid, reason) for nodeid, (seconds, reason) in reasons.items() if reason]
    if slow:
        terminalreporter.section("why the slow tests are slow")
        for seconds, nodeid, reason in sorted(slow, reverse=True):
            terminalreporter.write_line(f"{seconds:6.1f} s  {nodeid}: {reason}")
