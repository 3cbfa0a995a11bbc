"""What is refused before any cluster is contacted."""

from __future__ import annotations

import re

import pytest

from tests.orchestrator.cluster.made_up import URL, Cluster, Crwn, SweepFile, submit


@pytest.mark.parametrize(
    ("text", "options", "match"),
    [
        ("seeds: [0, 0]\nbenchmarks: [r-digit]\nmethods: {supsub: {scales: [FC16]}}\n", [], r"supsub.*|r-digit.*"),
        (None, ["--out", "runs/tiny"], r"--out: expected an absolute path that all machines .*; given 'runs/tiny'"),
        (None, ["--out", "~/tiny"], r"--out: expected an absolute path"),
        (None, ["--gpus", "1.5"], r"--gpus: expected a share of at most 1 or a whole number, given 1.5"),
        (None, ["--cpus", "0"], r"--cpus: expected more than 0, given 0"),
        (
            None,
            ["--data-root", "data"],
            r"--data-root: expected an absolute path on the cluster's machines; given 'data'",
        ),
        (None, ["--tracking-uri", "http://a", "--no-tracking"], r"expected one of them, given both"),
        (None, ["--tracking-uri", "sqlite:///mlflow.db"], r"expected an absolute path on the cluster's head"),
    ],
)
def test_what_cannot_work_starts_nothing(
    *, crwn: Crwn, sweep_file: SweepFile, cluster: Cluster, text: str | None, options: list[str], match: str
) -> None:
    """Exit code 2, all faults of the sweep at once, and no job."""
    file = sweep_file(text) if text else sweep_file()
    ended = submit(crwn, file, *options)
    assert ended.code == 2
    assert re.search(match, ended.err)
    if text:
        assert "supsub" in ended.err
        assert "r-digit" in ended.err
    assert cluster.asked == []


def test_a_store_is_needed_that_outlives_the_job(crwn: Crwn, sweep_file: SweepFile, cluster: Cluster) -> None:
    """The sweep's own store will do if absolute; without one, the error requests --out."""
    ended = crwn("submit", sweep_file(), "--address", URL)
    assert (ended.code, ended.codes) == (2, ("store-not-named",))
    assert "--out: " in ended.err
    relative = sweep_file(sweep_file().read_text() + "store: runs/x\n")
    refused = crwn("submit", relative, "--address", URL)
    assert refused.codes == ("path-not-absolute",)
    assert f"error: {relative}: store: " in refused.err
    absolute = sweep_file(relative.read_text().replace("runs/x", "/shared/runs/x"))
    assert crwn("submit", absolute, "--address", URL).code == 0
    assert "--out /shared/runs/x " in cluster.asked[0]["entrypoint"]


def test_a_store_may_be_on_object_storage(crwn: Crwn, sweep_file: SweepFile, cluster: Cluster) -> None:
    """Its address is passed on as it is; one with credentials, which everybody would see, is refused."""
    assert crwn("submit", sweep_file(), "--address", URL, "--out", "s3://bucket/runs/x").code == 0
    assert "--out s3://bucket/runs/x " in cluster.asked[0]["entrypoint"]
    refused = crwn("submit", sweep_file(), "--address", URL, "--out", "s3://me:secret@bucket/runs")
    assert (refused.code, refused.codes) == (2, ("address-with-credentials",))
    assert "secret" not in refused.err
    assert len(cluster.asked) == 1
