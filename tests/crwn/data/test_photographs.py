"""Sets of photographs: what is checked, what is converted, and the cache of decoded images."""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from crwn.data.base import BaseSet, DataError, Datasets
from crwn.data.photographs import Photographs
from tests.crwn.data.conftest import FORMS, SIZE, TEST_EACH, TRAIN_EACH, write_folders
from tests.refusals import refused

Pixels = NDArray[np.uint8]
LaidOut = Callable[..., Path]


def nothing(done: int, total: int) -> None:
    """A progress callback that does nothing."""


def decoded(cache: Path) -> list[Path]:
    """What the cache holds."""
    return sorted(path for path in (cache / "decoded").glob("*") if path.suffix != ".lock")


# What is checked


def test_too_few_classes_and_images_are_told_at_once(
    laid_out: LaidOut, photographs: Photographs, classes: dict[str, list[Pixels]]
) -> None:
    """How many classes there are, and which have too few images and how many."""
    few = {name: images[:5] if name != "n01" else images for name, images in classes.items()}
    four = dataclasses.replace(photographs, num_classes=4)
    with refused(DataError, "classes-miscounted", "images-too-few", says=["expected 4", "found 3", "n02 (5), n03 (5)"]):
        four.load(laid_out("folders", few))


def test_images_that_cannot_be_decoded_are_all_named(laid_out: LaidOut, photographs: Photographs, cache: Path) -> None:
    """With their places; and nothing is left in the cache."""
    root = laid_out("folders")
    bad = [root / "toy" / "n01" / "n01_0000.png", root / "toy" / "n03" / "n03_0005.png"]
    bad[0].write_bytes(b"no image")
    bad[1].write_bytes(bad[1].read_bytes()[:60])
    with refused(DataError, "image-of-no-known-format", "image-undecodable", says=[f"{path} (" for path in bad]):
        photographs.load(root)
    assert decoded(cache) == []


def test_more_images_than_the_set_has_are_refused(
    laid_out: LaidOut, photographs: Photographs, classes: dict[str, list[Pixels]]
) -> None:
    """It is unknown which belong to the set: the error has the class, the number and the place."""
    more = {name: [*images, 255 - images[0]] if name == "n02" else images for name, images in classes.items()}
    root = laid_out("folders", more)
    with refused(DataError, "images-too-many", says=["n02 (7)", "19 images", "3 classes", f"{root}/toy"]):
        photographs.load(root)


def test_phases_of_one_set_are_not_added_up(
    laid_out: LaidOut, photographs: Photographs, classes: dict[str, list[Pixels]]
) -> None:
    """Three pickles with the same classes, as in MetaOptNet: the error names each with its content."""
    root = laid_out("labels")
    file = root / "toy" / "miniImageNet_category_split_train.pickle"
    phases = [file.with_name(f"{file.stem}_phase_{phase}.pickle") for phase in ("train", "val", "test")]
    for phase in phases:
        shutil.copyfile(file, phase)
    file.unlink()
    with refused(DataError, "images-too-many", says=["n01 (18), n02 (18), n03 (18)", *map(str, phases)]) as caught:
        photographs.load(root)
    assert str(caught.value).count("18 images of 3 classes") == 3


@pytest.mark.parametrize("form", FORMS)
def test_an_image_on_both_sides_is_refused(
    form: str, laid_out: LaidOut, photographs: Photographs, classes: dict[str, list[Pixels]], cache: Path
) -> None:
    """A pixel-for-pixel copy of a test image in its class's training set is refused, whatever its name and place."""
    classes["n02"][1] = classes["n02"][5]
    with refused(DataError, "test-images-in-training"):
        photographs.load(laid_out(form, classes))
    assert decoded(cache) == []


def test_an_image_of_two_classes_is_refused_unless_such_are_rare(
    laid_out: LaidOut,
    photographs: Photographs,
    classes: dict[str, list[Pixels]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Published sets have some (CIFAR-100: six of 10,000): up to one in a thousand is reported, more are refused."""
    classes["n02"][1] = classes["n01"][5]
    root = laid_out("folders", classes)
    with refused(DataError, "test-images-in-training", says=["n01_0005.png", "n02_0001.png"]):
        photographs.load(root)
    monkeypatch.setattr("crwn.data.photographs.MAX_SHARED", 1 / 6)
    (note,) = photographs.prepare(root, nothing)
    assert all(name in note for name in ("n01_0005.png", "n02_0001.png"))


def test_twins_within_a_side_are_allowed(
    laid_out: LaidOut, photographs: Photographs, classes: dict[str, list[Pixels]]
) -> None:
    """Published sets have them, and no test image was trained on."""
    classes["n02"][1], classes["n03"][5] = classes["n02"][0], classes["n03"][4]
    assert photographs.prepare(laid_out("folders", classes), nothing) == ()


def test_another_publication_is_refused(laid_out: LaidOut, photographs: Photographs, cache: Path) -> None:
    """A set that is the same everywhere has a checksum over its images, in whatever form they were found."""
    root = laid_out("Parquet")
    photographs.load(root)
    (folder,) = decoded(cache)
    checksum = json.loads((folder / "made.json").read_text())["sha256"]
    shutil.rmtree(folder)
    known = dataclasses.replace(photographs, decoded=checksum)
    assert known.checksums == {"decoded images": checksum}
    known.load(root)
    shutil.rmtree(folder)
    with refused(DataError, "images-not-as-published", says=["0" * 64, checksum]):
        dataclasses.replace(photographs, decoded="0" * 64).load(root)
    assert decoded(cache) == []


# What is converted


def test_other_images_are_converted_and_it_is_said(
    laid_out: LaidOut, photographs: Photographs, classes: dict[str, list[Pixels]]
) -> None:
    """Grey and palette images become coloured, others are resized; how many is told once, when they are decoded."""
    classes["n01"][0] = classes["n01"][0][:, :, 0]
    classes["n02"][0] = np.zeros((5, 7, 3), dtype=np.uint8)
    classes["n02"][1] = np.zeros((5, 7), dtype=np.uint8)
    root = laid_out("folders", classes)
    notes = photographs.prepare(root, nothing)
    assert notes == (
        "2 images were of mode L and converted to RGB",
        f"2 images were of other sizes and resized to {SIZE}x{SIZE}",
    )
    assert photographs.prepare(root, nothing) == ()


# The cache


def test_images_are_decoded_once(
    laid_out: LaidOut, photographs: Photographs, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second time they are mapped to memory from the cache, even by another process."""
    root = laid_out("folders")
    first, told = photographs.load(root), []
    monkeypatch.setattr("crwn.data.photographs.pixels", None)
    again = dataclasses.replace(photographs)
    assert again.prepare(root, lambda done, total: told.append(done)) == ()
    assert told == []
    second = again.load(root)
    assert isinstance(second.train.images, np.memmap)
    assert not second.train.images.flags.writeable
    assert np.array_equal(first.train.images, second.train.images)
    (folder,) = decoded(cache)
    assert {path.name for path in folder.iterdir()} == {"train.npy", "test.npy", "made.json"}


@pytest.mark.parametrize("form", ["Parquet", "folders"])
def test_other_files_are_decoded_anew(
    form: str, laid_out: LaidOut, photographs: Photographs, classes: dict[str, list[Pixels]]
) -> None:
    """The cache records its sources, so another image under an old name is noticed."""
    root = laid_out(form)
    before = photographs.load(root).train.images.copy()
    shutil.rmtree(root)
    classes["n01"][0] = 255 - classes["n01"][0]
    laid_out(form, classes)
    assert not np.array_equal(photographs.load(root).train.images, before)


def test_many_files_are_known_by_size_and_time(
    laid_out: LaidOut, photographs: Photographs, monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    """Sixty thousand of them are not read to find the cache."""
    monkeypatch.setattr("crwn.data.photographs.MANY_FILES", 5)
    root = laid_out("folders")
    photographs.load(root)
    monkeypatch.setattr("crwn.data.photographs.sha256_of", None)
    photographs.load(root)
    assert len(decoded(cache)) == 1
    os.utime(root / "toy" / "n01" / "n01_0000.png", ns=(1, 1))
    photographs.load(root)
    assert len(decoded(cache)) == 2


def test_progress_is_told_from_none_to_all(
    laid_out: LaidOut, photographs: Photographs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Progress counts the images that are kept, in steps."""
    monkeypatch.setattr("crwn.data.photographs.DECODED_AT_ONCE", 5)
    told: list[tuple[int, int]] = []
    photographs.prepare(laid_out("folders"), lambda done, total: told.append((done, total)))
    assert told == [(0, 18), (5, 18), (10, 18), (15, 18), (18, 18)]


def test_an_interrupted_decode_leaves_no_cache(
    laid_out: LaidOut, photographs: Photographs, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C in the middle, and the next start decodes from the beginning."""
    monkeypatch.setattr("crwn.data.photographs.DECODED_AT_ONCE", 5)

    def interrupt(done: int, total: int) -> None:
        if done >= total / 2:
            raise KeyboardInterrupt

    root = laid_out("folders")
    with pytest.raises(KeyboardInterrupt):
        photographs.prepare(root, interrupt)
    assert decoded(cache) == []
    assert photographs.load(root).train.images.shape == (3 * TRAIN_EACH, 3, SIZE, SIZE)


def decode_slowly(photographs: Photographs, root: Path) -> None:
    """Runs in a process that is to be killed."""
    photographs.prepare(root, lambda done, total: time.sleep(60))


def test_a_killed_decode_leaves_no_cache(laid_out: LaidOut, photographs: Photographs, cache: Path) -> None:
    """Kill -9 leaves a partial cache, which is never used and which the next start removes."""
    root = laid_out("folders")
    process = multiprocessing.get_context("spawn").Process(target=decode_slowly, args=(photographs, root))
    process.start()
    deadline = time.monotonic() + 60
    while not list((cache / "decoded").glob(".*.part/raw.npy")) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert len(list((cache / "decoded").glob(".*.part"))) == 1
    photographs.load(root)
    assert [path.name.endswith(".part") for path in decoded(cache)] == [False]


def test_two_who_need_a_set_decode_it_once(laid_out: LaidOut, photographs: Photographs) -> None:
    """The second waits, and finds it done."""
    root, told, started = laid_out("folders"), [], threading.Barrier(2)

    def prepare() -> None:
        started.wait()
        photographs.prepare(root, lambda done, total: told.append(done))

    threads = [threading.Thread(target=prepare) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert told.count(0) == 1


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (lambda folder: (folder / "made.json").write_text('{"format": 99}'), "cache-of-another-version"),
        (lambda folder: (folder / "made.json").write_text(""), "cache-damaged"),
        (lambda folder: (folder / "train.npy").unlink(), "cache-damaged"),
        (lambda folder: os.truncate(folder / "test.npy", 200), "cache-damaged"),
        (
            lambda folder: (folder / "test.npy").write_bytes(
                (folder / "test.npy").read_bytes().replace(b"6, 3", b"(6,3")
            ),
            "cache-damaged",
        ),
        (
            lambda folder: np.save(folder / "test.npy", np.zeros((6, 3, 4, 4), dtype=np.uint8)),
            "cache-of-another-version",
        ),
    ],
)
def test_a_cache_that_is_not_ours_is_refused(
    spoil: Callable[[Path], Any], code: str, laid_out: LaidOut, photographs: Photographs, cache: Path
) -> None:
    """Of another version or damaged: the error names it and says what to do, which works."""
    root = laid_out("folders")
    photographs.load(root)
    (folder,) = decoded(cache)
    spoil(folder)
    with refused(DataError, code, says=str(folder)):
        photographs.load(root)
    shutil.rmtree(folder)
    photographs.load(root)


def test_a_cache_that_cannot_be_written_says_how_much_it_needs(
    laid_out: LaidOut, photographs: Photographs, cache: Path
) -> None:
    """The error has the folder, the megabytes needed and the reason."""
    cache.parent.mkdir(parents=True)
    cache.touch()
    with refused(DataError, "cache-not-written", says=[f"{cache}/decoded", "0 MB"]):
        photographs.load(laid_out("folders"))


def test_a_changed_cache_is_found_by_verifying(laid_out: LaidOut, photographs: Photographs, cache: Path) -> None:
    """One bit of one image: loading only maps the file, but `verify` compares the checksum."""
    known = Datasets({"toy": base_set(photographs)}, [laid_out("folders")])
    known.verify("toy")
    (folder,) = decoded(cache)
    content = bytearray((folder / "test.npy").read_bytes())
    content[-7] ^= 1
    (folder / "test.npy").write_bytes(content)
    with refused(DataError, "cache-damaged", says=str(folder)):
        Datasets({"toy": base_set(photographs)}, known.roots).verify("toy")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_may_not_be_read_is_named(laid_out: LaidOut, photographs: Photographs) -> None:
    """It is not treated as empty."""
    root = laid_out("folders")
    (root / "toy" / "n02").chmod(0)
    with refused(DataError, "file-unreadable", says=["'toy'", "Permission denied", "n02"]):
        Datasets({"toy": base_set(photographs)}, [root]).load("toy")


def test_a_link_that_leads_nowhere_is_named(laid_out: LaidOut, photographs: Photographs) -> None:
    """By its path, as a file that cannot be read."""
    root = laid_out("folders")
    (root / "toy" / "n02" / "n02_0001.png").unlink()
    (root / "toy" / "n02" / "n02_0001.png").symlink_to("nowhere.png")
    with refused(DataError, "file-unreadable", says=["'toy'", "n02_0001.png"]):
        Datasets({"toy": base_set(photographs)}, [root]).load("toy")


# Where it is found and fetched


def base_set(source: Photographs) -> BaseSet:
    return BaseSet(
        name="toy",
        image_shape=source.image_shape,
        train_counts=(4, 4, 4),
        test_counts=(2, 2, 2),
        mean=(0.5, 0.5, 0.5),
        std=(0.2, 0.2, 0.2),
        source=source,
    )


def test_a_set_that_may_not_be_passed_on_is_asked_for(photographs: Photographs, cache: Path) -> None:
    """The error says where to put it, in which layouts."""
    with refused(DataError, "data-set-missing", "download-not-allowed") as caught:
        Datasets({"toy": base_set(photographs)}, [cache]).ensure("toy")
    lines = str(caught.value).splitlines()
    assert lines[-3].startswith("  toy/*.parquet")
    assert lines[-2].startswith("  or toy/*.pkl")
    assert lines[-1].startswith("  or toy/CLASS/*.jpg")


def test_a_set_that_can_be_fetched_is(photographs: Photographs, cache: Path, classes: dict[str, list[Pixels]]) -> None:
    """It goes into the cache, and nothing else is left of the download."""

    def download(folder: Path) -> None:
        (folder / "toy").mkdir()
        write_folders(folder / "toy", classes)
        (folder / "archive.tar.gz").touch()

    known = Datasets({"toy": base_set(dataclasses.replace(photographs, download=download))}, [cache])
    known.ensure("toy")
    known.verify("toy")
    assert {path.name for path in cache.iterdir()} == {"toy", "decoded", ".photographs.lock"}
    assert known.find("toy") == cache


@pytest.mark.parametrize("fails", [True, False])
def test_a_download_that_fails_leaves_nothing(photographs: Photographs, cache: Path, *, fails: bool) -> None:
    """Neither a part of the set nor an archive."""

    def download(folder: Path) -> None:
        (folder / "archive.tar.gz").touch()
        if fails:
            raise RuntimeError("connection reset")

    known = Datasets({"toy": base_set(dataclasses.replace(photographs, download=download))}, [cache])
    with refused(DataError, "data-set-missing", "download-failed", says="connection reset" if fails else "'toy'"):
        known.ensure("toy")
    assert {path.name for path in cache.iterdir()} == {".photographs.lock"}


def test_counts_are_as_declared(photographs: Photographs, laid_out: LaidOut) -> None:
    """The images match the declared counts."""
    known = Datasets({"toy": base_set(photographs)}, [laid_out("class_dict")])
    known.verify("toy")
    assert len(known.load("toy").test.labels) == 3 * TEST_EACH
