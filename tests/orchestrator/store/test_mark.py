"""A store's mark: which folders are stores, or become one, and a store's identity."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.errors import UserError
from orchestrator.store.address import open_files
from orchestrator.store.store import Store
from tests.object_storage import ObjectStorage
from tests.refusals import refused

Listing = Callable[[Path], dict[str, bytes]]


@pytest.mark.parametrize(
    ("old_new", "code"),
    [
        ((b'"version"', b'"versjon"'), "not-a-version"),
        ((b" 3", b" 4"), "content-changed"),
        ((b'"id"', b'"ie"'), "mark-incomplete"),
        ((b"-", b"_"), "mark-incomplete"),
        ((b"crwn-", b"crwm-"), "content-changed"),
    ],
)
def test_a_changed_mark_is_refused(tmp_path: Path, old_new: tuple[bytes, bytes], code: str) -> None:
    """The id of the store's own mark ends in a sum of it; another version or id would be believed."""
    Store(tmp_path / "made").create()
    file = tmp_path / "made" / "store.json"
    file.write_bytes(file.read_bytes().replace(*old_new))
    with refused(UserError, code, says="store.json: "):
        Store(tmp_path / "made")


def test_a_mark_without_a_sum_is_read(tmp_path: Path) -> None:
    """An older crwn wrote it."""
    (tmp_path / "store.json").write_text('{"format": "crwn-store", "version": [1, 1], "id": "abc"}')
    assert (Store(tmp_path).version, Store(tmp_path).identity) == ((1, 1), "abc")


def test_a_newer_store_is_refused(store: Store) -> None:
    """A newer major version may keep things elsewhere; a newer minor one only adds."""
    mark = store.root / "store.json"
    mark.write_text(json.dumps({"format": "crwn-store", "version": [1, 9]}))
    assert Store(store.root).exists
    mark.write_text(json.dumps({"format": "crwn-store", "version": [2, 0]}))
    with refused(UserError, "newer-version", says=[str(store.root), "version 2"]):
        Store(store.root)


@pytest.mark.parametrize(
    ("content", "code"),
    [
        ("", "json-unreadable"),
        ("{", "json-unreadable"),
        ("[]", "wrong-type"),
        ("{}", "not-a-version"),
        ('{"version": []}', "not-a-version"),
        ('{"version": ["a"]}', "not-a-version"),
        ('{"version": 1}', "not-a-version"),
    ],
)
def test_a_damaged_mark_is_named(store: Store, content: str, code: str) -> None:
    """A folder whose mark cannot be read is not written into."""
    (store.root / "store.json").write_text(content)
    with refused(UserError, code, says="store.json: "):
        Store(store.root)


def test_a_prefix_with_other_objects_is_refused(storage: ObjectStorage) -> None:
    """As a folder with other files is; an object is no store either."""
    address = storage.new_address()
    open_files(address).write("thesis/thesis.tex", b"...")
    with refused(UserError, "folder-in-use"):
        Store(address)
    with refused(UserError, "not-a-folder"):
        Store(open_files(address).below("thesis/thesis.tex").address)


def test_an_empty_folder_becomes_a_store(tmp_path: Path) -> None:
    """So does one in which only a lock was taken."""
    for name, files in (("empty", ()), ("locked", (".lock",))):
        folder = tmp_path / name
        folder.mkdir()
        for file in files:
            (folder / file).touch()
        Store(folder).create()
        assert Store(folder).exists


def test_a_folder_with_other_files_is_refused(tmp_path: Path, listing: Listing) -> None:
    """Other files are never mixed with results."""
    (tmp_path / "thesis.tex").write_text("...")
    before = listing(tmp_path)
    with refused(UserError, "folder-in-use", says=str(tmp_path)):
        Store(tmp_path)
    assert listing(tmp_path) == before


def test_a_file_is_refused(tmp_path: Path) -> None:
    """A store is a folder."""
    (tmp_path / "file").touch()
    with refused(UserError, "not-a-folder", says=str(tmp_path / "file")):
        Store(tmp_path / "file")


def test_a_link_to_nothing_is_refused(tmp_path: Path) -> None:
    """A dangling link cannot become a folder."""
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    with refused(UserError, "not-a-folder", says=str(tmp_path / "link")):
        Store(tmp_path / "link")


@pytest.mark.parametrize("name", ["store.json.1a2b3c4d.part", "1a2b3c4d.part", ".lock"])
def test_what_a_killed_run_left_is_no_foreign_file(tmp_path: Path, name: str) -> None:
    """A kill while the store is being created must not make its folder unusable."""
    (tmp_path / name).touch()
    store = Store(tmp_path)
    store.create()
    assert store.exists


def test_a_store_is_known_wherever_it_is(store: Store, tmp_path: Path) -> None:
    """Moved and made again it has the identity it was made with; another store has another, also at its old place."""
    identity = store.identity
    store.root.rename(tmp_path / "moved")
    moved = Store(tmp_path / "moved")
    moved.create()
    assert moved.identity == identity
    successor = Store(tmp_path / "store")
    successor.create()
    assert successor.identity != identity
    assert Store(successor.root).identity == successor.identity
