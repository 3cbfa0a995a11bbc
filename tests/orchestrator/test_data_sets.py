"""`crwn data`: which sets are known, which were found and where, whether they are intact, and what to do if not."""

from __future__ import annotations

import dataclasses
import hashlib
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from crwn.benchmarks.features import WeightsFile
from crwn.data import BASE_SETS, Datasets, data_roots, digits
from crwn.data.base import BaseSet, ImageSet, ImageSplit
from crwn.data.layouts import ClassFolders
from crwn.data.photographs import Photographs
from crwn.data.verified import VerifiedFiles
from orchestrator import data_sets
from orchestrator.errors import UserError
from tests.refusals import refused

Crwn = Callable[..., Any]  # gives an Outcome: code, out, err

MNIST_FILES = BASE_SETS["mnist"].source.expected
TOY_FILE, TOY_CONTENT = "TOY/images", b"\x01\x02\x03\x04" * 100


def toy(root: Path) -> ImageSet:
    """A hundred coloured images of one pixel, for training and for testing."""
    images = np.frombuffer((root / TOY_FILE).read_bytes(), dtype=np.uint8)[:300].reshape(100, 3, 1, 1)
    split = ImageSplit(images=images, labels=np.arange(100) % 2)
    return ImageSet(train=split, test=split)


def unreachable(_: Path) -> None:
    raise OSError("the network is unreachable")


SOURCE = VerifiedFiles(checksums={TOY_FILE: hashlib.sha256(TOY_CONTENT).hexdigest()}, download=unreachable, read=toy)
TOY = BaseSet(
    name="toy",
    image_shape=(3, 1, 1),
    train_counts=(50, 50),
    test_counts=(50, 50),
    mean=(0.01, 0.01, 0.01),
    std=(0.004, 0.004, 0.004),
    source=SOURCE,
)


@pytest.fixture
def know(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes the base sets given the only ones that are known."""

    def replace(*known: BaseSet) -> None:
        sets: Mapping[str, BaseSet] = {entry.name: entry for entry in known}
        monkeypatch.setattr(data_sets, "BASE_SETS", sets)
        monkeypatch.setattr(data_sets, "datasets", lambda data_root: Datasets(sets, data_roots(data_root)))

    return replace


@pytest.fixture
def toy_root(workplace: Path) -> Path:
    """A folder that holds the toy set."""
    (workplace / "sets" / "TOY").mkdir(parents=True)
    (workplace / "sets" / TOY_FILE).write_bytes(TOY_CONTENT)
    return workplace / "sets"


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without a network."""

    def refuse(*_: object) -> None:
        raise OSError("the network is unreachable")

    monkeypatch.setattr(VerifiedFiles, "fetch", refuse)


@pytest.fixture(scope="module")
def mnist(data_root: Path) -> Path:
    """The data root, if it holds MNIST."""
    if not (data_root / "MNIST").is_dir():
        pytest.skip(f"needs MNIST: {data_root} has no folder MNIST")
    return data_root


def rows_of(text: str) -> dict[str, list[str]]:
    """The printed table's rows by their first cell."""
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in text.splitlines() if line.startswith("│")]
    return {row[0]: row[1:] for row in rows}


# What there is


def test_what_is_known_and_where_it_would_be_looked_for(crwn: Crwn, workplace: Path) -> None:
    """Every set with its shape and counts; without files only the embedded one is there; the folders in order."""
    (workplace / "one").mkdir()
    shown = crwn("data", "list", "--data-root", "one")
    assert (shown.code, shown.err) == (0, "")
    assert rows_of(shown.out) == {
        "digits": ["8x8, grey", "embedded", "10", "1,437", "360"],
        "mnist": ["28x28, grey", "absent", "10", "60,000", "10,000"],
        "cifar100": ["32x32, colour", "absent", "100", "50,000", "10,000"],
        "miniimagenet": ["84x84, colour", "absent", "100", "50,000", "10,000"],
        "tinyimagenet": ["64x64, colour", "absent", "100", "10,000", "2,000"],
    }
    *_, title, first, second = shown.out.splitlines()
    assert title == "Searched, in this order:"
    assert [first, second] == [f"  {workplace / 'one'}", f"  {Path.home() / '.cache' / 'crwn'}"]


def test_a_set_that_is_there_is_shown_with_its_folder(
    crwn: Crwn, know: Callable[..., None], toy_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Found through $CRWN_DATA; three channels are colour."""
    know(TOY)
    monkeypatch.setenv("CRWN_DATA", str(toy_root))
    assert rows_of(crwn("data", "list").out) == {"toy": ["1x1, colour", str(toy_root), "2", "100", "100"]}


def test_a_damaged_set_does_not_hide_the_others(crwn: Crwn, know: Callable[..., None], toy_root: Path) -> None:
    """It is in the list with the file that is damaged."""
    know(TOY, digits.DIGITS)
    (toy_root / TOY_FILE).write_bytes(b"half")
    shown = crwn("data", "list", "--data-root", toy_root)
    assert shown.code == 0
    assert rows_of(shown.out)["digits"][1] == "embedded"
    assert rows_of(shown.out)["toy"][1].startswith(f"damaged: data set 'toy': {toy_root / TOY_FILE} is damaged")


@pytest.mark.parametrize("command", [["list"], ["fetch", "digits"], ["verify"]])
def test_a_data_root_that_is_no_folder_is_refused(crwn: Crwn, workplace: Path, command: list[str]) -> None:
    """By every command, in words, with code 2."""
    del workplace
    ended = crwn("data", *command, "--data-root", "nowhere")
    assert (ended.code, ended.out, ended.codes) == (2, "", ("not-a-folder",))
    assert all(fact in ended.err for fact in ("error: --data-root: ", "'nowhere'"))


# Fetching


@pytest.mark.usefixtures("offline")
def test_what_is_there_is_not_fetched(crwn: Crwn, know: Callable[..., None], toy_root: Path) -> None:
    """Neither an embedded set nor one whose files are there needs a network; both are told where they are."""
    know(TOY, digits.DIGITS)
    fetched = crwn("data", "fetch", "digits")
    assert (fetched.code, fetched.out, fetched.err) == (0, "digits: embedded\n", "")
    fetched = crwn("data", "fetch", "toy", "--data-root", toy_root)
    assert (fetched.code, fetched.out) == (0, f"toy: {toy_root}\n")


def test_what_is_absent_is_fetched_into_the_cache(crwn: Crwn, know: Callable[..., None], workplace: Path) -> None:
    """And found there afterwards."""
    del workplace

    def download(folder: Path) -> None:
        (folder / "TOY").mkdir(parents=True)
        (folder / TOY_FILE).write_bytes(TOY_CONTENT)

    know(dataclasses.replace(TOY, source=dataclasses.replace(SOURCE, download=download)))
    cache = Path.home() / ".cache" / "crwn"
    assert crwn("data", "fetch", "toy").out == f"toy: {cache}\n"
    assert (cache / TOY_FILE).read_bytes() == TOY_CONTENT
    assert rows_of(crwn("data", "list").out)["toy"][1] == str(cache)


@pytest.mark.usefixtures("offline")
def test_what_cannot_be_fetched_is_told_with_what_to_do(crwn: Crwn, workplace: Path) -> None:
    """Code 2, the folders that were looked in, why it failed, which files to put where."""
    ended = crwn("data", "fetch", "mnist", "--data-root", workplace)
    assert (ended.code, ended.out, ended.codes) == (2, "", ("data-set-missing", "download-failed"))
    assert "Traceback" not in ended.err
    for part in (str(workplace), str(Path.home() / ".cache" / "crwn"), *MNIST_FILES):
        assert part in ended.err


def test_a_damaged_set_is_not_fetched_over(crwn: Crwn, know: Callable[..., None], toy_root: Path) -> None:
    """The user's own files are the user's to replace."""
    know(TOY)
    (toy_root / TOY_FILE).write_bytes(b"half")
    ended = crwn("data", "fetch", "toy", "--data-root", toy_root)
    assert (ended.code, ended.codes) == (2, ("checksum-differs",))
    assert all(fact in ended.err for fact in (f"{toy_root / TOY_FILE} ", "4 bytes"))
    assert (toy_root / TOY_FILE).read_bytes() == b"half"


@pytest.mark.parametrize("command", [["fetch", "mnst"], ["verify", "digits", "mnst"]])
def test_an_unknown_name_is_refused(crwn: Crwn, command: list[str]) -> None:
    """With the known ones and the nearest; before anything is done."""
    ended = crwn("data", *command)
    assert (ended.code, ended.out, ended.codes) == (2, "", ("unknown-name",))
    known = "cifar100, digits, miniimagenet, mnist, tinyimagenet"
    assert all(fact in ended.err for fact in (known, "'mnst'", "'mnist'"))


def test_all_that_is_missing_is_told_at_once(crwn: Crwn, know: Callable[..., None], workplace: Path) -> None:
    """Of two sets that a sweep needs and nobody has, both, with what to put where; nothing is decoded before."""
    del crwn
    know(TOY, dataclasses.replace(TOY, name="other"))
    with refused(UserError, "data-set-missing", "download-failed", says=["'other'", "'toy'"]) as caught:
        data_sets.ensure(["other", "toy"], str(workplace), Console())
    assert str(caught.value).count("unreachable") == 2


def test_missing_weights_are_told_beside_missing_sets(crwn: Crwn, know: Callable[..., None], workplace: Path) -> None:
    """Before anything starts, with the folders that were looked in and what to do."""
    del crwn
    know(TOY)
    wanted = WeightsFile(network="alexnet", digits="7be5be79")
    with refused(
        UserError,
        "weights-missing",
        "data-set-missing",
        "download-failed",
        says=["alexnet-*7be5be79.pth", str(workplace)],
    ):
        data_sets.ensure(["toy"], str(workplace), Console(), [wanted])


def test_decoding_is_told(crwn: Crwn, know: Callable[..., None], workplace: Path) -> None:
    """That it happens, how many images, once; and what had to be converted."""
    source = Photographs(
        image_shape=(3, 8, 8), num_classes=2, train_each=1, test_each=1, layouts=(ClassFolders(folder="toy"),)
    )
    for name in ("ant", "bee"):
        (workplace / "toy" / name).mkdir(parents=True)
        for number in range(2):
            mode, colour = ("L", number) if name == "ant" else ("RGB", (number, 0, 9))
            Image.new(mode, (8, 8), colour).save(workplace / "toy" / name / f"{number}.png")
    know(dataclasses.replace(TOY, image_shape=(3, 8, 8), train_counts=(1, 1), test_counts=(1, 1), source=source))
    fetched = crwn("data", "fetch", "toy", "--data-root", workplace)
    assert (fetched.code, fetched.err) == (0, "")
    assert fetched.out.splitlines() == [
        "toy: decoding 4 images, once on this machine",
        "toy: 2 images were of mode L and converted to RGB",
        f"toy: {workplace}",
    ]
    assert crwn("data", "fetch", "toy", "--data-root", workplace).out == f"toy: {workplace}\n"
    assert crwn("data", "verify", "toy", "--data-root", workplace).out == (
        f"toy: complete; 2 training and 2 test images of 2 classes; {workplace}\n"
    )


# Whole or not


def test_every_command_sees_the_same_fault(
    crwn: Crwn, know: Callable[..., None], workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`data fetch`, `data verify`, `run` and `doctor` end with the file and what is wrong, before anything starts."""
    source = Photographs(
        image_shape=(3, 8, 8), num_classes=2, train_each=1, test_each=1, layouts=(ClassFolders(folder="toy"),)
    )
    (workplace / "toy" / "images").mkdir(parents=True)
    (workplace / "toy" / "images" / "a.png").touch()
    (workplace / "toy" / "train.csv").write_text("filename,label\na.png,n1\nb.png\n")
    base = dataclasses.replace(
        TOY, name="tinyimagenet", image_shape=(3, 8, 8), train_counts=(1, 1), test_counts=(1, 1), source=source
    )
    know(base)
    monkeypatch.setattr("orchestrator.execution.survey.BASE_SETS", {"tinyimagenet": base})
    (workplace / "sweep.yaml").write_text(
        "seeds: [0]\nbenchmarks: [split-tinyimagenet]\nmethods: {neuromodnet: {scales: [nf2]}}\n"
    )
    fault = f"{workplace}/toy/train.csv, row 3: expected filename,label, found 'b.png'"
    options = ("--data-root", workplace)
    for command, code in (
        (("data", "fetch", "tinyimagenet"), 2),
        (("data", "verify", "tinyimagenet"), 1),
        (("run", "sweep.yaml", "--executor", "inline", "--no-tracking"), 2),
        (("doctor", "sweep.yaml", "--executor", "inline", "--no-tracking"), 1),
    ):
        ended = crwn(*command, *options)
        assert ended.code == code, command
        (line,) = [line for line in (ended.out + ended.err).splitlines() if "train.csv" in line]
        assert fault in line
    assert not (workplace / "runs" / "sweep" / "trials").exists()


def test_without_names_absent_sets_are_no_fault(crwn: Crwn) -> None:
    """The embedded one is whole; an absent one comes with the command that downloads it, or with what to put there."""
    ended = crwn("data", "verify")
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.splitlines() == [
        "digits: complete; 1,437 training and 360 test images of 10 classes; embedded",
        "mnist: absent; crwn data fetch mnist downloads it",
        "cifar100: absent; crwn data fetch cifar100 downloads it",
        "miniimagenet: absent; " + "; ".join(BASE_SETS["miniimagenet"].source.expected),
        "tinyimagenet: absent; " + "; ".join(BASE_SETS["tinyimagenet"].source.expected),
    ]


def test_a_set_that_is_named_must_be_there(crwn: Crwn) -> None:
    """Code 1; the sets after it are looked at all the same."""
    ended = crwn("data", "verify", "mnist", "digits")
    assert (ended.code, ended.err) == (1, "")
    assert ended.out.splitlines()[0] == "mnist: absent; crwn data fetch mnist downloads it"
    assert ended.out.splitlines()[1].startswith("digits: complete")


def test_a_set_with_files_is_whole(crwn: Crwn, know: Callable[..., None], toy_root: Path) -> None:
    """With the number of checksums and the folder."""
    know(TOY)
    ended = crwn("data", "verify", "toy", "--data-root", toy_root)
    assert ended.code == 0
    expected = f"toy: complete; 1 checksums, 100 training and 100 test images of 2 classes; {toy_root}\n"
    assert ended.out == expected


@pytest.mark.parametrize("names", [["toy"], []])
def test_a_damaged_file_is_a_fault(crwn: Crwn, know: Callable[..., None], toy_root: Path, names: list[str]) -> None:
    """Code 1 whether the set is named or not; the others are looked at all the same."""
    know(TOY, digits.DIGITS)
    (toy_root / TOY_FILE).write_bytes(TOY_CONTENT[:-1] + b"\x05")
    ended = crwn("data", "verify", *names, "--data-root", toy_root)
    assert ended.code == 1
    assert ended.out.startswith("toy: ")
    assert all(fact in ended.out for fact in (f"{toy_root / TOY_FILE} ", "400 bytes"))
    assert ended.out.count(": complete; ") == (not names)


def test_counts_that_are_wrong_are_a_fault(crwn: Crwn, know: Callable[..., None], toy_root: Path) -> None:
    """Files with the right checksums whose images are not as many as they should be."""
    know(dataclasses.replace(TOY, train_counts=(50, 49)))
    ended = crwn("data", "verify", "--data-root", toy_root)
    assert ended.code == 1
    assert re.search(r"^toy: .*training: .*99.*\(3, 1, 1\).*\(100, 3, 1, 1\)", ended.out)


@pytest.mark.data
def test_mnist_as_it_is(crwn: Crwn, mnist: Path) -> None:
    """Whole where its files are."""
    ended = crwn("data", "verify", "mnist", "--data-root", mnist)
    assert (ended.code, ended.err) == (0, "")
    assert ended.out == (
        f"mnist: complete; 4 checksums, 60,000 training and 10,000 test images of 10 classes; {mnist}\n"
    )


@pytest.mark.data
@pytest.mark.parametrize("file", MNIST_FILES)
def test_mnist_with_one_bit_flipped(crwn: Crwn, mnist: Path, workplace: Path, file: str) -> None:
    """In any of its files, it is found and the file is named."""
    for name in MNIST_FILES:
        (workplace / name).parent.mkdir(parents=True, exist_ok=True)
        if name != file:
            (workplace / name).symlink_to((mnist / name).absolute())
    shutil.copyfile(mnist / file, workplace / file)
    with (workplace / file).open("r+b") as opened:
        opened.seek(5000)
        byte = opened.read(1)[0]
        opened.seek(5000)
        opened.write(bytes([byte ^ 1]))
    ended = crwn("data", "verify", "--data-root", workplace)
    assert ended.code == 1
    assert f"{workplace / file} " in ended.out
