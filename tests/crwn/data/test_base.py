"""Where the files of a base set are searched for, and how they are verified and downloaded."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from crwn.data import BASE_SETS
from crwn.data.base import (
    BaseSet,
    DataError,
    Datasets,
    Embedded,
    ImageSet,
    ImageSplit,
    Normalisation,
    cache_root,
    data_roots,
    sha256_of,
)
from crwn.data.digits import DIGITS
from crwn.data.verified import VerifiedFiles
from tests.refusals import refused

FILES = {"TOY/images": b"\x01\x02\x03\x04" * 100, "TOY/raw/labels": b"\x00\x01" * 50}
SHA256 = {name: hashlib.sha256(content).hexdigest() for name, content in FILES.items()}


def write_files(root: Path, files: dict[str, bytes] | None = None) -> None:
    for name, content in (FILES if files is None else files).items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)


def read_toy(root: Path) -> ImageSet:
    images = np.frombuffer((root / "TOY/images").read_bytes(), dtype=np.uint8).reshape(100, 1, 2, 2)
    labels = np.frombuffer((root / "TOY/raw/labels").read_bytes(), dtype=np.uint8).astype(np.int64)
    return ImageSet(train=ImageSplit(images=images, labels=labels), test=ImageSplit(images=images, labels=labels))


def refuse(_: Path) -> None:
    raise OSError("no route to host")


def toy(download: Callable[[Path], None] = refuse, load: Callable[[Path], ImageSet] = read_toy) -> BaseSet:
    return BaseSet(
        name="toy",
        image_shape=(1, 2, 2),
        train_counts=(50, 50),
        test_counts=(50, 50),
        mean=(0.01,),
        std=(0.004,),
        source=VerifiedFiles(checksums=SHA256, download=download, read=load),
    )


def datasets(base: BaseSet, *roots: Path) -> Datasets:
    return Datasets({"toy": base}, roots or data_roots())


def listing(root: Path) -> dict[str, tuple[int, int, bytes | None]]:
    """All below a folder: mode, time of change and content."""
    return {
        path.relative_to(root).as_posix(): (
            path.stat().st_mode,
            path.stat().st_mtime_ns,
            path.read_bytes() if path.is_file() else None,
        )
        for path in [root, *root.rglob("*")]
    }


@pytest.fixture
def roots(tmp_path: Path) -> tuple[Path, Path]:
    """Two empty folders."""
    folders = (tmp_path / "one", tmp_path / "two")
    for folder in folders:
        folder.mkdir()
    return folders


def test_folders_are_searched_in_order(monkeypatch: pytest.MonkeyPatch, roots: tuple[Path, Path], cache: Path) -> None:
    """The folder given, then $CRWN_DATA, then the cache in the home folder; what is not set is left out."""
    one, two = roots
    assert cache_root() == cache
    assert data_roots() == (cache,)
    assert data_roots(str(one)) == (one, cache)
    monkeypatch.setenv("CRWN_DATA", str(two))
    assert data_roots() == (two, cache)
    assert data_roots(str(one)) == (one, two, cache)
    monkeypatch.setenv("CRWN_DATA", "")
    assert data_roots("") == (cache,)


def test_a_folder_may_be_relative_or_in_the_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A tilde is the home folder, and a relative path becomes absolute, so that other processes can use it."""
    (tmp_path / "home" / "sets").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "home")
    assert data_roots("~/sets")[0] == data_roots("sets")[0] == tmp_path / "home" / "sets"


def test_a_data_root_that_is_no_folder_is_an_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, roots: tuple[Path, Path]
) -> None:
    """A typo is not silently ignored; the error says where the value came from."""
    with refused(DataError, "not-a-folder", says=["--data-root: ", "'/no/such/folder'"]):
        data_roots("/no/such/folder")
    (tmp_path / "file").touch()
    monkeypatch.setenv("CRWN_DATA", str(tmp_path / "file"))
    with refused(DataError, "not-a-folder", says=["$CRWN_DATA: ", str(tmp_path / "file")]):
        data_roots(str(roots[0]))


def test_a_set_is_loaded_from_the_first_folder_that_holds_it(roots: tuple[Path, Path], cache: Path) -> None:
    """A folder without any of the files is skipped; of two that hold the set, the first is read."""
    seen = []

    def load(root: Path) -> ImageSet:
        seen.append(root)
        return read_toy(root)

    one, two = roots
    write_files(two)
    images = datasets(toy(load=load), one, two, cache).load("toy")
    assert images.train.images.shape == (100, 1, 2, 2)
    write_files(one)
    datasets(toy(load=load), one, two, cache).load("toy")
    assert seen == [two, one]


def test_a_set_is_loaded_once(roots: tuple[Path, Path]) -> None:
    """All trials of a process share one copy in memory."""
    seen = []

    def load(root: Path) -> ImageSet:
        seen.append(root)
        return read_toy(root)

    write_files(roots[0])
    known = datasets(toy(load=load), *roots)
    assert known.load("toy") is known.load("toy")
    assert seen == [roots[0]]
    assert known.roots == roots


def test_using_a_set_writes_nothing_into_its_folder(roots: tuple[Path, Path], cache: Path) -> None:
    """A read-only data root works: checking and loading leave every file, folder and time unchanged."""
    write_files(roots[0])
    before = listing(roots[0])
    known = datasets(toy(), roots[0], cache)
    known.ensure("toy")
    known.load("toy")
    assert listing(roots[0]) == before
    assert not cache.exists()


def test_a_missing_set_names_every_place_and_file(roots: tuple[Path, Path], cache: Path) -> None:
    """The error says which folders were searched, why the download failed, and which files to put where."""
    with refused(
        DataError,
        "data-set-missing",
        "download-failed",
        says=["'toy'", "no route to host", "--data-root", "$CRWN_DATA"],
    ) as caught:
        datasets(toy(), *roots, cache).ensure("toy")
    text = str(caught.value)
    for root in (*roots, cache):
        assert f"  {root}\n" in text
    assert text.endswith("  TOY/images\n  TOY/raw/labels")


def test_loading_never_downloads(roots: tuple[Path, Path], cache: Path) -> None:
    """A worker without the files names the folders; only the driver downloads."""

    def download(_: Path) -> None:
        raise AssertionError("load must not download")

    with refused(DataError, "data-set-missing", says=["'toy'", *map(str, (*roots, cache))]):
        datasets(toy(download), *roots, cache).load("toy")
    assert not cache.exists()


@pytest.mark.parametrize("act", ["ensure", "load"])
@pytest.mark.parametrize(
    ("content", "size"), [(b"\x01\x02\x03\x04" * 99, 396), (b"", 0), (b"\x01\x02\x03\x05" * 100, 400)]
)
def test_a_damaged_file_is_named(roots: tuple[Path, Path], act: str, content: bytes, size: int) -> None:
    """A file that was cut off, emptied or altered is found before anything is learned from it."""
    write_files(roots[0], {**FILES, "TOY/images": content})
    write_files(roots[1])
    found = hashlib.sha256(content).hexdigest()
    with refused(
        DataError, "checksum-differs", says=["'toy'", f"{roots[0]}/TOY/images", str(size), SHA256["TOY/images"], found]
    ):
        getattr(datasets(toy(), *roots), act)("toy")


@pytest.mark.parametrize("act", ["ensure", "load"])
def test_a_part_of_a_set_is_an_error(roots: tuple[Path, Path], act: str) -> None:
    """A folder with some of the files is not skipped: someone meant it to be used."""
    write_files(roots[0], {"TOY/images": FILES["TOY/images"]})
    write_files(roots[1])
    with refused(DataError, "data-set-incomplete", says=["'toy'", str(roots[0]), "TOY/raw/labels"]):
        getattr(datasets(toy(), *roots), act)("toy")


def test_a_download_goes_to_the_cache(roots: tuple[Path, Path], cache: Path) -> None:
    """It is written into a folder of its own first, then moved to where it is found; folders given stay untouched."""
    written = []

    def download(folder: Path) -> None:
        written.append(folder)
        assert not (cache / "TOY").exists()
        write_files(folder)
        (folder / "TOY/archive.gz").touch()  # what a downloader leaves beside the files

    known = datasets(toy(download), *roots, cache)
    known.ensure("toy")
    assert known.load("toy").test.labels.tolist() == [0, 1] * 50
    left = {path.relative_to(cache).as_posix() for path in cache.rglob("*") if path.is_file()}
    assert left - {".TOY.lock"} == set(FILES)
    assert len(written) == 1
    assert written[0] != cache
    assert not written[0].exists()
    assert all(not list(root.iterdir()) for root in roots)


def test_what_is_there_is_not_downloaded_again(cache: Path) -> None:
    """Requesting it twice downloads it once."""
    calls = []

    def download(folder: Path) -> None:
        calls.append(folder)
        write_files(folder)

    for _ in range(2):
        datasets(toy(download)).ensure("toy")
    assert len(calls) == 1
    assert sha256_of(cache / "TOY/images") == SHA256["TOY/images"]


def test_two_who_need_a_set_fetch_it_once() -> None:
    """The second waits for the lock, then finds the files and continues without an error."""
    calls, errors = [], []
    started = threading.Barrier(2)

    def download(folder: Path) -> None:
        calls.append(folder)
        time.sleep(0.2)
        write_files(folder)

    def ensure() -> None:
        started.wait()
        try:
            datasets(toy(download)).ensure("toy")
        except Exception as error:  # noqa: BLE001 (handed to the main thread)
            errors.append(error)

    threads = [threading.Thread(target=ensure) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(calls) == 1


def half(folder: Path) -> None:
    write_files(folder, {"TOY/images": FILES["TOY/images"]})


def nothing(_: Path) -> None:
    """A downloader that fails silently."""


def half_then_fail(folder: Path) -> None:
    half(folder)
    raise RuntimeError("connection reset")


def altered(folder: Path) -> None:
    write_files(folder, {**FILES, "TOY/raw/labels": b"an error page of some proxy"})


@pytest.mark.parametrize(
    "download",
    [
        refuse,
        nothing,
        half_then_fail,
        half,
        altered,
    ],
)
def test_a_download_that_fails_leaves_nothing(download: Callable[[Path], None], cache: Path) -> None:
    """No file of the set and no temporary folder remains, so the next attempt starts afresh and succeeds."""
    with pytest.raises(DataError, match="'toy'"):
        datasets(toy(download)).ensure("toy")
    assert [path for path in cache.rglob("*") if path.suffix != ".lock"] == []
    datasets(toy(write_files)).ensure("toy")


def test_a_download_cut_off_while_it_is_moved_is_made_good(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that dies between two moves may leave part of a set, which must not block later ones."""
    replace, moves = Path.replace, []

    def replace_once(path: Path, target: Path) -> Path:
        moves.append(target)
        if len(moves) > 1:
            raise OSError("killed")
        return replace(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", replace_once)
        with contextlib.suppress(DataError):
            datasets(toy(write_files)).ensure("toy")
    datasets(toy(write_files)).ensure("toy")


def test_a_part_in_the_cache_is_what_a_download_left(cache: Path) -> None:
    """Nobody else writes to the cache, so a partial set is ignored: loading finds nothing, downloading completes it."""
    write_files(cache, {"TOY/images": b"old and damaged"})
    with refused(DataError, "data-set-missing", says="'toy'"):
        datasets(toy(write_files)).load("toy")
    datasets(toy(write_files)).ensure("toy")
    assert datasets(toy()).load("toy").train.labels.tolist() == [0, 1] * 50


def embedded(read: Callable[[], ImageSet] = lambda: ImageSet(train=GOOD, test=GOOD)) -> BaseSet:
    return dataclasses.replace(toy(), source=Embedded(read=read))


def test_an_embedded_set_needs_no_folder(cache: Path) -> None:
    """It is loaded from its library, and nothing is downloaded."""
    seen = []

    def read() -> ImageSet:
        seen.append(True)
        return ImageSet(train=GOOD, test=GOOD)

    known = datasets(embedded(read), cache)
    assert known.ensure("toy") == ()
    assert not seen
    known.load("toy")
    assert seen == [True]
    assert not cache.exists()


def test_the_folder_of_a_set_is_found(roots: tuple[Path, Path], cache: Path) -> None:
    """None if no folder holds the files, otherwise the first that does; searching downloads nothing."""

    def download(_: Path) -> None:
        raise AssertionError("find must not download")

    known = datasets(toy(download), *roots, cache)
    assert known.find("toy") is None
    write_files(cache)
    assert known.find("toy") == cache
    write_files(roots[1])
    assert known.find("toy") == roots[1]
    (roots[1] / "TOY/images").write_bytes(b"half")
    with refused(DataError, "checksum-differs", says=f"{roots[1]}/TOY/images"):
        known.find("toy")


def test_an_embedded_set_is_in_no_folder(cache: Path) -> None:
    """It has no files to be found."""
    assert datasets(embedded(), cache).find("toy") is None


def images_of(count: int, labels: list[int], shape: tuple[int, ...] = (1, 2, 2)) -> ImageSplit:
    return ImageSplit(images=np.zeros((count, *shape), dtype=np.uint8), labels=np.array(labels, dtype=np.int64))


GOOD = images_of(100, [0, 1] * 50)


def test_a_set_is_whole(roots: tuple[Path, Path]) -> None:
    """Its files have their checksums, and its images the declared counts, shape and labels."""
    write_files(roots[0])
    datasets(toy(), *roots).verify("toy")


@pytest.mark.parametrize(
    ("train", "test", "faults"),
    [
        (images_of(99, [0, 1] * 50), GOOD, [("images-miscounted", r"training: .*100.* \(1, 2, 2\).*\(99, 1, 2, 2\)")]),
        (GOOD, images_of(100, [0, 1] * 49), [("images-miscounted", r"test: .*100.*\(98,\)")]),
        (GOOD, images_of(100, [0, 1] * 50, (2, 2)), [("images-miscounted", r"test: .*100.*\(100, 2, 2\)")]),
        (images_of(100, [0] * 100), GOOD, [("labels-incomplete", "training: .*0 to 1")]),
        (
            GOOD,
            images_of(100, [0, 1, 1, 1] * 25),
            [
                ("class-miscounted", "test: .*50.* class 0, found 25"),
                ("class-miscounted", "test: .*50.* class 1, found 75"),
            ],
        ),
        (GOOD, images_of(100, [0, 1, 2, 1] * 25), [("labels-incomplete", "test: .*0 to 1")]),
        (
            images_of(0, []),
            images_of(0, []),
            [("images-miscounted", "training: .*100"), ("images-miscounted", "test: .*100")],
        ),
    ],
)
def test_images_that_are_not_as_declared_are_named(
    train: ImageSplit, test: ImageSplit, faults: list[tuple[str, str]], roots: tuple[Path, Path]
) -> None:
    """Too few images, another shape, missing or extra labels: all are reported at once, by part."""
    write_files(roots[0])
    with refused(DataError, *dict.fromkeys(code for code, _ in faults), says="'toy'") as caught:
        datasets(toy(load=lambda _: ImageSet(train=train, test=test)), *roots).verify("toy")
    said = str(caught.value).removeprefix("data set 'toy': ").split("; ")
    assert all(re.match(fault, text) for (_, fault), text in zip(faults, said, strict=True))


@pytest.mark.parametrize("files", [{}, {"TOY/images": FILES["TOY/images"]}, {**FILES, "TOY/images": b"half"}])
def test_files_that_are_not_whole_are_no_set(files: dict[str, bytes], roots: tuple[Path, Path]) -> None:
    """Absent, incomplete or damaged: nothing is read."""

    def load(_: Path | None) -> ImageSet:
        raise AssertionError("nothing to read")

    write_files(roots[0], files)
    with pytest.raises(DataError, match="'toy'"):
        datasets(toy(load=load), *roots).verify("toy")


def test_a_hash_is_of_the_whole_file(tmp_path: Path) -> None:
    """Longer than any buffer: equal to hashing the bytes at once."""
    content = bytes(range(256)) * 5000
    (tmp_path / "file").write_bytes(content)
    assert sha256_of(tmp_path / "file") == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-14), (torch.float32, 1e-6)])
def test_normalising_subtracts_the_mean_and_divides_by_the_deviation(dtype: torch.dtype, tolerance: float) -> None:
    """(byte / 255 - mean) / deviation for all 256 bytes, to rounding; the bytes themselves stay."""
    images = torch.arange(256, dtype=torch.uint8).view(16, 16)
    normalised = DIGITS.normalisation(images, dtype)
    expected = [(byte / 255 - DIGITS.mean[0]) / DIGITS.std[0] for byte in range(256)]
    assert normalised.dtype == dtype
    assert normalised.shape == images.shape
    assert normalised.flatten().tolist() == pytest.approx(expected, rel=tolerance, abs=tolerance)
    assert images.flatten().tolist() == list(range(256))


def test_each_channel_is_normalised_by_its_own() -> None:
    """Of images [G, N, C, H, W], every pixel by its channel's mean and deviation."""
    images = torch.randint(0, 256, (2, 5, 3, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    mean, std = (0.1, 0.5, 0.9), (0.2, 0.3, 0.4)
    normalised = Normalisation(mean=mean, std=std)(images, torch.float64)
    for channel in range(3):
        expected = (images[:, :, channel].double() / 255 - mean[channel]) / std[channel]
        torch.testing.assert_close(normalised[:, :, channel], expected, rtol=1e-13, atol=1e-13)


@pytest.fixture
def homeless(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user without HOME and without a passwd entry, as in some containers."""

    def unknown(*_: object) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("CRWN_DATA", raising=False)
    monkeypatch.setattr(Path, "expanduser", unknown)


@pytest.mark.usefixtures("homeless")
def test_without_a_home_embedded_images_are_there_and_others_say_what_to_set(tmp_path: Path) -> None:
    """Embedded sets need no folder; downloads have nowhere to go, and the error says what to set."""
    assert data_roots() == ()
    data = Datasets(BASE_SETS, data_roots())
    assert data.obtain("digits") is None
    with refused(DataError, "data-set-missing", "no-home-folder", says=["'mnist'", "HOME", "--data-root"]):
        data.obtain("mnist")
    with refused(DataError, "data-set-missing", says=["'mnist'", "--data-root", "$CRWN_DATA"]):
        data.load("mnist")
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    (raw / "train-images-idx3-ubyte").write_bytes(b"...")
    with refused(DataError, "data-set-incomplete", says=str(tmp_path)):
        Datasets(BASE_SETS, (tmp_path,)).obtain("mnist")


def test_a_data_root_of_an_unknown_user_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever it is named."""
    monkeypatch.setenv("CRWN_DATA", "~nobody-of-this-name/data")
    with refused(DataError, "no-home-folder", says=["$CRWN_DATA: ", "'~nobody-of-this-name/data'"]):
        data_roots()


def test_a_folder_that_may_not_be_looked_into_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as another user's home, to which HOME may point in a container."""

    def refuse(*_: object) -> bool:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "is_file", refuse)
    with refused(DataError, "folder-unreadable", says=["'mnist'", str(tmp_path), "Permission denied"]):
        Datasets(BASE_SETS, (tmp_path,)).find("mnist")
