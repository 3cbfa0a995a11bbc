"""The files of a store: one contract, on a folder and on object storage, and what only one of them has."""

from __future__ import annotations

import logging
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pyarrow import fs

from orchestrator.errors import LostError, StorageError, UserError
from orchestrator.execution.home import Home, SentFiles
from orchestrator.store import object_storage
from orchestrator.store.address import check_address, open_files
from orchestrator.store.files import Files, Mark
from orchestrator.store.folder import LocalFiles
from orchestrator.store.locks import TakenError
from orchestrator.store.object_storage import FEW, ObjectFiles
from tests.object_storage import BUCKET, ObjectStorage
from tests.refusals import refused

KINDS = ["folder", "objects", "sent"]


def at_a_new_place(request: pytest.FixtureRequest, folder: Path) -> Files:
    match request.param:
        case "folder":
            return open_files(folder)
        case "objects":
            return open_files(request.getfixturevalue("storage").new_address())
    return SentFiles(str(folder), Home(str(folder)).answer)


@pytest.fixture(params=KINDS)
def new_files(request: pytest.FixtureRequest, tmp_path: Path) -> Files:
    """Files at an address where nothing exists yet."""
    return at_a_new_place(request, tmp_path / "deep" / "store")


@pytest.fixture(params=KINDS)
def files(request: pytest.FixtureRequest, tmp_path: Path) -> Files:
    """Files at an existing, empty address."""
    made = at_a_new_place(request, tmp_path / "deep" / "store")
    made.make()
    return made


of_a_driver = pytest.mark.parametrize("files", ["folder", "objects"], indirect=True)
"""What a trial that sends its files home has no use for."""


# The contract


def test_what_is_written_is_read(files: Files) -> None:
    """Byte for byte, empty or larger than one part of an upload, and replaced at once."""
    for content in (b"first", b"", bytes(range(256)) * 50_000, b"last"):
        files.write("trials/a/file.bin", content)
        assert files.read("trials/a/file.bin") == content


def test_what_is_not_there_is_said_so(new_files: Files) -> None:
    """A missing file is no outage, and nothing waits; removing it is no error."""
    files = new_files
    for name in ("file", "folder/file"):
        with pytest.raises(FileNotFoundError):
            files.read(name)
        assert not files.exists(name)
        assert files.signature(name) is None
        files.remove(name)
    assert files.names("") == []
    assert files.walk("folder") == []
    assert files.kind() == "absent"


def test_files_and_folders_are_listed(files: Files) -> None:
    """`names` what is directly in a folder, `walk` all files below it; both in order."""
    for name in ("store.json", "trials/b/x", "trials/a/y", "trials/a/x", "sweeps/z.json"):
        files.write(name, b".")
    assert files.kind() == "folder"
    assert files.names("") == ["store.json", "sweeps", "trials"]
    assert files.names("trials") == ["a", "b"]
    assert files.names("trials/a") == ["x", "y"]
    assert files.walk("trials") == ["trials/a/x", "trials/a/y", "trials/b/x"]
    assert files.walk("") == ["store.json", "sweeps/z.json", "trials/a/x", "trials/a/y", "trials/b/x"]
    assert [files.exists(name) for name in ("trials/a/x", "trials/a", "trials/c")] == [
        True,
        files.exists("trials"),
        False,
    ]


def test_a_file_that_is_removed_is_gone(files: Files) -> None:
    """The others stay, and an emptied folder has no files."""
    for name in ("a/x", "a/y"):
        files.write(name, b".")
    files.remove("a/x")
    assert (files.exists("a/x"), files.exists("a/y")) == (False, True)
    files.remove("a/y")
    assert files.walk("") == []
    assert files.names("a") == []


@pytest.mark.parametrize("number", [3, FEW + 1])
def test_many_files_are_looked_up_and_read(files: Files, number: int) -> None:
    """In the order asked for, with None where there is none."""
    for index in range(0, number, 2):
        files.write(f"trials/{index}/x", str(index).encode())
    names = [f"trials/{index}/x" for index in reversed(range(number))]
    expected = [None if index % 2 else str(index).encode() for index in reversed(range(number))]
    assert list(files.read_all(names)) == expected
    assert files.existing(names) == {name for name, content in zip(names, expected, strict=True) if content}


def test_a_signature_changes_with_the_content(files: Files) -> None:
    """At once where the length changes; it stays while nothing is written."""
    files.write("x", b"short")
    before = files.signature("x")
    assert files.signature("x") == before
    files.write("x", b"longer than that")
    assert files.signature("x") != before


def test_the_signatures_of_many_files_are_those_of_each(files: Files) -> None:
    """Those asked for by name, in the folders of a folder; nothing where it is not there."""
    for name in ("trials/a/x", "trials/b/y", "trials/b/z", "trials/x", "trials/a/deep/x", "other/a/x"):
        files.write(name, name.encode())
    names = ("trials/a/x", "trials/b/y")
    assert files.signatures("trials", ("x", "y")) == {name: files.signature(name) for name in names}
    assert files.signatures("none", ("x",)) == {}


def test_a_place_is_made_and_seen_to_be_writable(new_files: Files) -> None:
    """Nothing is left of the probe."""
    new_files.make()
    new_files.make()
    assert new_files.walk("") == []


@of_a_driver
def test_an_address_opens_the_same_files(files: Files) -> None:
    """In another process too, which gets no more than the address; a folder's files are below their own."""
    files.write("report/x", b"content")
    assert open_files(files.address).read("report/x") == b"content"
    assert files.below("report").read("x") == b"content"
    assert open_files(files.below("report").address).read("x") == b"content"
    assert files.locate("report/x") == files.below("report").locate("x")


def test_a_writer_and_its_readers_see_whole_files(files: Files) -> None:
    """While one replaces a file, another finds the earlier or the later content, never a part."""
    contents = [bytes([value]) * 300_000 for value in range(8)]
    files.write("x", contents[0])
    ended = threading.Event()
    seen: list[bytes] = []

    def look() -> None:
        while not ended.is_set():
            seen.append(files.read("x"))

    reader = threading.Thread(target=look)
    reader.start()
    for content in contents:
        files.write("x", content)
    ended.set()
    reader.join()
    assert seen
    assert all(content in contents for content in seen)


@of_a_driver
def test_a_claim_is_seen_by_others_until_it_is_given_back(files: Files) -> None:
    """By the process that holds it too, through another object; asking for it writes nothing."""
    files.make()
    claim, other = files.claim("run"), files.claim("run")
    assert other.holders() == []
    assert files.walk("") == []
    claim.acquire(timeout=0)
    assert (claim.is_held, other.is_held) == (True, False)
    assert [holder.is_live for holder in other.holders()] == [True]
    assert files.claim("tracking").holders() == []
    with pytest.raises(TakenError):
        other.acquire(timeout=0)
    claim.release()
    claim.release()
    assert other.holders() == []
    other.acquire(timeout=0)
    other.release()


# A folder that goes while it is written

MARK = Mark(name=".driver", content=b"a word")


@pytest.fixture
def marked(tmp_path: Path) -> LocalFiles:
    """A run's files in runs/x, with a file and the run's word; runs/other is another store with a word of its own."""
    for name, word in (("other", b"another word"), ("x", MARK.content)):
        made = LocalFiles(tmp_path / "runs" / name)
        made.make()
        made.write(MARK.name, word)
        made.write("trials/a/x", name.encode())
    return made.marked(MARK)


def swapped(runs: Path) -> None:
    (runs / "x").rename(runs / "y")
    (runs / "other").rename(runs / "x")


def swapped_with_each_other(runs: Path) -> None:
    swapped(runs)
    (runs / "y").rename(runs / "other")


def in_anothers_place(runs: Path) -> None:
    (runs / "x").rename(runs / "y")
    (runs / "x").mkdir()


def under_a_file(runs: Path) -> None:
    (runs / "x").rename(runs / "y")
    (runs / "x").touch()


def without_a_parent(runs: Path) -> None:
    shutil.rmtree(runs)


LOSSES: list[Any] = [
    pytest.param(lambda runs: (runs / "x").rename(runs / "y"), "nothing", "runs/y", id="renamed"),
    pytest.param(lambda runs: runs.rename(runs.parent / "old"), "nothing", "old/x", id="parent-renamed"),
    pytest.param(lambda runs: (runs / "x").rename(runs.parent / "x"), "nothing", None, id="moved"),
    pytest.param(lambda runs: shutil.rmtree(runs / "x"), "nothing", None, id="removed"),
    pytest.param(without_a_parent, "nothing", None, id="parent-removed"),
    pytest.param(in_anothers_place, "another folder", "runs/y", id="an-empty-one-in-its-place"),
    pytest.param(under_a_file, "a file", "runs/y", id="a-file-in-its-place"),
    pytest.param(swapped, "another folder", "runs/y", id="another-store-in-its-place"),
    pytest.param(swapped_with_each_other, "another folder", "runs/other", id="swapped"),
]
"""What happens to runs/x, what is at its place then, and where it is, if that can be found out."""


def said_of(root: Path, found: str, place: Path | None) -> str:
    start = f"{root}: expected the store of this run, found {found}. "
    if place is None:
        return (
            f"{start}It was moved or removed; nothing was written elsewhere. If it was moved, it has everything up to "
            "the last resume points: continue with --out and its new path"
        )
    return (
        f"{start}It is now {place}, with everything up to the last resume points; nothing was written elsewhere. "
        f"Continue with --out {place}"
    )


@pytest.mark.parametrize("sent", [False, True], ids=["here", "sent"])
@pytest.mark.parametrize(("lose", "found", "place"), LOSSES)
def test_a_marked_folder_that_is_lost_is_not_written(
    *,
    marked: LocalFiles,
    tmp_path: Path,
    listing: Callable[[Path], dict[str, bytes]],
    lose: Callable[[Path], object],
    found: str,
    place: str | None,
    sent: bool,
) -> None:
    """Neither another store nor the empty place gets anything, or loses it; what is said names the new place."""
    files: Files = SentFiles(marked.address, Home(marked.address, MARK).answer) if sent else marked
    files.write("trials/b/x", b"before")
    lose(tmp_path / "runs")
    before = listing(tmp_path)
    for write in (
        lambda: files.write("trials/b/x", b"after"),
        lambda: files.write("top", b"after"),
        lambda: files.remove("trials/a/x"),
        lambda: marked.below("report").write("page", b"after"),
        files.check,
    ):
        with pytest.raises(LostError) as lost:
            write()
        assert str(lost.value) == said_of(marked.root, found, None if place is None else tmp_path / place)
    assert listing(tmp_path) == before


def test_a_link_that_leads_elsewhere_by_now_is_a_lost_folder(
    marked: LocalFiles, tmp_path: Path, listing: Callable[[Path], dict[str, bytes]]
) -> None:
    """What it led to is named."""
    link = tmp_path / "link"
    link.symlink_to(marked.root)
    files = LocalFiles(link).marked(MARK)
    files.write("x", b"through the link")
    assert (marked.root / "x").exists()
    link.unlink()
    link.symlink_to(tmp_path / "runs" / "other")
    before = listing(tmp_path)
    with pytest.raises(LostError) as lost:
        files.write("x", b"elsewhere")
    assert str(lost.value) == said_of(link, "another folder", marked.root)
    assert listing(tmp_path) == before


@pytest.mark.parametrize(("lose", "found"), [pytest.param(*loss.values[:2], id=loss.id) for loss in LOSSES])
def test_a_folder_that_is_lost_in_the_middle_of_a_write(
    *,
    marked: LocalFiles,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    lose: Callable[[Path], object],
    found: str,
) -> None:
    """The file is in no other folder, also where it was about to be moved into its place."""
    monkeypatch.setattr(os, "fsync", lambda _: lose(tmp_path / "runs"))
    with refused(LostError, "store-moved", says=found):
        marked.write("trials/a/x", b"later")
    assert b"later" not in [path.read_bytes() for path in tmp_path.rglob("*") if path.name == "x" and path.is_file()]
    assert list(marked.root.rglob("*.part")) == []


def test_a_folder_that_is_as_it_was_is_written(marked: LocalFiles) -> None:
    """Also below a folder that is new."""
    marked.check()
    marked.write("trials/c/x", b"content")
    marked.below("report/figures").write("deep/page", b"content")
    marked.remove("trials/a/x")
    assert marked.walk("") == [".driver", "report/figures/deep/page", "trials/c/x"]


@pytest.mark.parametrize("name", ["x", "trials/a/x"])
def test_writing_makes_no_folder_that_was_not_made(tmp_path: Path, name: str) -> None:
    """Neither the files' own nor, for those below, the one that they belong to; nor does locking it."""
    files = LocalFiles(tmp_path / "deep" / "store")
    for write in (files.write, files.below("report").write):
        with refused(StorageError, "store-moved", says=str(files.root)):
            write(name, b"content")
    with refused(StorageError, "store-moved", says=str(files.root)):
        files.below("report").make()
    with pytest.raises(FileNotFoundError):
        files.claim("tracking").acquire(timeout=0)
    assert list(tmp_path.iterdir()) == []


def test_a_prefix_that_is_lost_is_not_written(storage: ObjectStorage) -> None:
    """One whose objects were removed, and one that is another store by now."""
    files = open_files(storage.new_address())
    mark = Mark(name="store.json", content=b"ours")
    for found, said in ((None, "no store"), (b"theirs", "another store")):
        files.write(mark.name, mark.content)
        run = files.marked(mark)
        run.write("trials/a/x", b"before")
        files.remove(mark.name) if found is None else files.write(mark.name, found)
        with refused(LostError, "store-moved", says=[said, "--out"]):
            run.write("trials/a/y", b"after")
        with pytest.raises(LostError):
            run.remove("trials/a/x")
        assert files.names("trials/a") == ["x"]


# Addresses


@pytest.mark.parametrize(
    "address",
    ["runs/a", "/scratch/runs", "a b/ü", "s3://bucket", "s3://bucket/a/b?region=x&scheme=http", "gs://bucket/a"],
)
def test_a_path_or_a_uri_is_an_address(address: str) -> None:
    """Nothing is looked up, and no credentials are needed."""
    check_address(address)


@pytest.mark.parametrize("name", ["a\nb", "a\x1bb", "a\udcffb"])
def test_a_path_below_a_folder_that_cannot_be_shown_is_refused(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its full path goes to other processes, and into lines; one with a space of any kind is a path like others."""
    for folder in (name, "a\u00a0b"):
        (tmp_path / folder).mkdir()
        monkeypatch.chdir(tmp_path / folder)
        if folder == name:
            with refused(UserError, "address-not-printable", says=repr(name)[1:-1]):
                open_files("runs/a")
        else:
            assert open_files(open_files("runs/a").address).address == str(tmp_path / folder / "runs" / "a")


@pytest.mark.parametrize("address", ["s3:/bucket/a", "s3:///a", "http://server/a", "file:///a", "hdfs://a/b", "S4://a"])
def test_another_kind_of_address_is_refused(address: str) -> None:
    """With what there is instead."""
    with refused(UserError, "address-unknown", says=["s3://bucket/prefix", "gs://bucket/prefix", repr(address)]):
        open_files(address)


@pytest.mark.parametrize(
    "address",
    [
        "s3://user:hidden@bucket/a",
        "s3://bucket/a?secret_key=hidden",
        "s3://bucket/a?access_key=hidden&region=x",
        "s3://bucket/a?X-Amz-Security-Token=hidden",
        "s3://bucket/a?endpoint_override=http://user:hidden@server:9000",
        "http://user:hidden@server/a",
    ],
)
def test_an_address_with_credentials_is_refused(address: str) -> None:
    """It would be shown and stored; the refusal says where they belong, and does not repeat them."""
    with refused(UserError, "address-with-credentials", says="AWS_SECRET_ACCESS_KEY") as caught:
        open_files(address)
    assert "hidden" not in str(caught.value)


def test_a_setting_that_pyarrow_does_not_know_is_refused(storage: ObjectStorage) -> None:
    """In its words, at the first use."""
    with refused(UserError, "address-unknown", says="'colour'"):
        open_files(f"{storage.new_address()}&colour=blue").exists("x")


def test_the_endpoint_comes_from_the_environment_too(storage: ObjectStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then the address is a bucket and a prefix alone."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{storage.endpoint}")
    files = open_files(f"s3://{BUCKET}/from-the-environment/")
    files.write("x", b"content")
    assert files.read("x") == b"content"
    assert files.locate("x") == f"s3://{BUCKET}/from-the-environment/x"
    assert files.walk("") == ["x"]


# Object storage: what is not there for folders


def test_a_bucket_that_does_not_exist_is_named_at_once(storage: ObjectStorage) -> None:
    """Waiting would not help."""
    files = open_files(storage.new_address().replace(BUCKET, "another"))
    with refused(StorageError, "bucket-refused", says=["s3://another/", "NO_SUCH_BUCKET"]):
        files.make()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that advances only by sleeping; it records the pauses."""
    pauses: list[float] = []
    monkeypatch.setattr(object_storage.time, "monotonic", lambda: sum(pauses))
    return pauses


class Failing:
    """A call that fails a number of times."""

    def __init__(self, failures: int, error: Exception) -> None:
        self.left = failures
        self.error = error

    def __call__(self, *_: Any, **__: Any) -> str:
        self.left -= 1
        if self.left >= 0:
            raise self.error
        return "an answer"


REFUSED = "AWS Error NETWORK_CONNECTION during HeadObject operation: curlCode: 7, Could not connect to server"


def patiently(files: ObjectFiles, call: Callable[[], Any]) -> Any:
    return files._patiently("x", call)


def test_a_call_is_repeated_while_the_storage_is_away(clock: list[float], caplog: pytest.LogCaptureFixture) -> None:
    """With pauses that grow to a limit; the first and the last are said, and nothing in between."""
    files = ObjectFiles("s3://bucket/a?region=x", sleep=clock.append)
    with caplog.at_level(logging.WARNING):
        assert patiently(files, Failing(7, OSError(REFUSED))) == "an answer"
    assert clock == [0.5, 1.0, 2.0, 4.0, 5.0, 5.0, 5.0]
    assert [record.message for record in caplog.records] == [
        f"s3://bucket/a/x: {REFUSED}; retrying for up to 90 s",
        "s3://bucket/a/x: the storage responds again",
    ]


def test_an_outage_that_lasts_is_an_error_that_names_the_object(clock: list[float]) -> None:
    """After a minute and a half; the next call has as much patience."""
    files = ObjectFiles("s3://bucket/a?region=x", sleep=clock.append)
    for start in (0, 90):
        with refused(StorageError, "storage-away", says=["s3://bucket/a/x: ", "90 s", "NETWORK_CONNECTION"]):
            patiently(files, Failing(10_000, OSError(REFUSED)))
        assert sum(clock) == start + 90


@pytest.mark.parametrize(
    "reason",
    [
        "AWS Error ACCESS_DENIED during HeadObject operation: No response body.",
        "AWS Error NO_SUCH_BUCKET during PutObject operation",
        "AWS Error INVALID_ACCESS_KEY_ID during ListObjectsV2 operation",
        "AWS Error UNKNOWN (HTTP status 301) during HeadObject operation",
    ],
)
def test_what_waiting_does_not_mend_is_an_error_at_once(clock: list[float], reason: str) -> None:
    """With the reason, and what to look at."""
    files = ObjectFiles("s3://bucket/a?region=x", sleep=clock.append)
    with refused(StorageError, "bucket-refused", says=["s3://bucket/a/x: ", "AWS_ACCESS_KEY_ID", reason]):
        patiently(files, Failing(1, OSError(reason)))
    assert clock == []


def test_a_missing_object_is_not_waited_for(clock: list[float]) -> None:
    """A missing object is a valid answer."""
    with pytest.raises(FileNotFoundError):
        patiently(ObjectFiles("s3://bucket/a?region=x", sleep=clock.append), Failing(1, FileNotFoundError("x")))
    assert clock == []


def test_nothing_is_written_of_a_content_that_cannot_be_finished(
    storage: ObjectStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C while a request is under way: the object has its earlier content, or the whole later one."""
    address = storage.new_address()
    files = open_files(address)
    files.write("x", b"earlier")
    filesystem = fs.FileSystem.from_uri(address)[0]
    opened = threading.Event()

    class Slow:
        """Opens streams and tells when it has."""

        def __getattr__(self, name: str) -> Any:
            return getattr(filesystem, name)

        def open_output_stream(self, path: str) -> Any:
            stream = filesystem.open_output_stream(path)
            opened.set()
            return stream

    monkeypatch.setitem(files.__dict__, "_place", (Slow(), files._place[1]))
    monkeypatch.setattr(files, "_pool", Interrupted(files._pool, opened))
    with pytest.raises(KeyboardInterrupt):
        files.write("x", b"later" * 100)
    files._pool.wait()
    assert files.read("x") == b"later" * 100


class Interrupted:
    """A pool of threads whose user presses Ctrl-C once the work has begun."""

    def __init__(self, pool: Any, begun: threading.Event) -> None:
        self._pool = pool
        self._begun = begun

    def submit(self, work: Callable[[], None]) -> Any:
        self._future = self._pool.submit(work)
        self._begun.wait(10)
        return self

    def result(self) -> None:
        raise KeyboardInterrupt

    def wait(self) -> None:
        self._future.result()


def test_an_outage_of_the_storage_itself_is_survived(storage: ObjectStorage) -> None:
    """The server refuses connections for some seconds: all operations continue when it is back."""
    files = open_files(storage.new_address())
    files.write("a", b"first")
    with storage.outage(seconds=2):
        files.write("b", b"second")
    with storage.outage(seconds=1):
        assert files.walk("") == ["a", "b"]
    assert (files.read("a"), files.read("b")) == (b"first", b"second")


def test_the_files_of_a_folder_are_beside_those_of_other_stores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLflow's database is in the folder of a store; for object storage in runs/ of the working folder."""
    monkeypatch.chdir(tmp_path)
    assert LocalFiles(Path("runs/a")).beside == tmp_path / "runs"
    assert ObjectFiles("s3://bucket/a").beside == tmp_path / "runs"


def test_a_trial_elsewhere_leaves_to_the_driver_what_is_the_drivers(tmp_path: Path) -> None:
    """Claims, reports and files next to the store, which trials do not need."""
    sent = SentFiles(str(tmp_path), Home(str(tmp_path)).answer)
    assert (sent.address, sent.locate("trials/a/x")) == (str(tmp_path), f"{tmp_path}/trials/a/x")
    for ask in (
        lambda: sent.claim("run"),
        lambda: sent.below("report"),
        lambda: sent.beside,
        lambda: sent.marked(MARK),
    ):
        with pytest.raises(TypeError, match="driver"):
            ask()
