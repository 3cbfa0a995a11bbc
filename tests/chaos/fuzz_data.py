"""Damages the files of small data sets thousands of times, and checks what the loader makes of them.

    .venv/bin/python -m tests.chaos.fuzz_data --flips 2000 --seed 0

Of every ten faults, eight flip one bit of a file, one truncates it, one removes some bytes. Each time, the set is
loaded and verified as by `crwn data verify`, from an empty cache, and the outcome is one of four:

- refused: a DataError, which every command shows as one line.
- equal: the images are unchanged, since the damaged bytes are not read.
- changed: other images. JPEG, BMP, pickles and Parquet have no checksums, so this can only be refused for a set whose
  checksum is known, or where the format has one.
- traceback: any other error, which is a bug.

The exit code is 1 after a traceback, or if images changed despite a checksum.
"""

from __future__ import annotations

import collections
import dataclasses
import gzip
import hashlib
import json
import os
import random
import shutil
import sys
import tarfile
import tempfile
import traceback
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np

from crwn.data import mnist
from crwn.data.base import BaseSet, DataError, Datasets, ImageSet, Source, cache_root
from crwn.data.cifar100 import PackedFolder
from crwn.data.layouts import ClassFolders, ParquetFiles, PickledArrays
from crwn.data.mnist import MNIST_BASE, SOURCE
from crwn.data.photographs import Photographs
from tests.chaos import fuzzing
from tests.crwn.data.conftest import (
    CLASSES,
    SIZE,
    TEST_EACH,
    TRAIN_EACH,
    Classes,
    encoded,
    write_class_dict,
    write_labels,
    write_lists,
    write_parquet,
    write_pickle,
)

Outcome: TypeAlias = Literal["refused", "equal", "changed", "traceback"]
OUTCOMES: tuple[Outcome, ...] = ("refused", "equal", "changed", "traceback")

PHOTOGRAPHS = Photographs(
    image_shape=(3, SIZE, SIZE),
    num_classes=len(CLASSES),
    train_each=TRAIN_EACH,
    test_each=TEST_EACH,
    layouts=(
        ParquetFiles(folder="toy", image="image", label="wnid"),
        PickledArrays(folder="toy"),
        ClassFolders(folder="toy"),
    ),
)
ARCHIVE = Photographs(
    image_shape=(3, 32, 32), num_classes=2, train_each=4, test_each=2, layouts=(PackedFolder(),), decoded=""
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One kind of file.

    Attributes:
        write: lays the set out below a data root.
        source: reads it.
        pattern: of the files that are damaged, below the data root; of the cache, where it is the cache's files.
        has_checksum: whether every change of an image can be seen.
        in_cache: whether the decoded images are damaged.
    """

    write: Callable[[Path], None]
    source: Source = PHOTOGRAPHS
    pattern: str = "toy/*"
    has_checksum: bool = False
    in_cache: bool = False


def classes() -> Classes:
    """Six random images of each of three classes."""
    generator = np.random.default_rng(0)
    each = TRAIN_EACH + TEST_EACH
    return {name: list(generator.integers(0, 256, (each, SIZE, SIZE, 3), dtype=np.uint8)) for name in CLASSES}


def in_toy(write: Callable[[Path, Classes], None]) -> Callable[[Path], None]:
    """Lays the photographs out in a form."""

    def lay_out(root: Path) -> None:
        (root / "toy").mkdir()
        write(root / "toy", classes())

    return lay_out


def folders(form: str) -> Callable[[Path, Classes], None]:
    """A folder for each class, of images of this form."""

    def write(folder: Path, images: Classes) -> None:
        for name, members in images.items():
            (folder / name).mkdir()
            for number, image in enumerate(members):
                (folder / name / f"{number}.{form.lower()}").write_bytes(encoded(image, form))

    return write


def write_protocol_5(folder: Path, images: Classes) -> None:
    """`data` and `labels` as text, by the last protocol."""
    labels = [name for name, members in images.items() for _ in members]
    data = np.stack([image for members in images.values() for image in members])
    write_pickle(folder / "train.pkl", {"data": data, "labels": labels}, protocol=5)


def write_archive(root: Path) -> None:
    """CIFAR-100's archive with twelve images."""
    generator = np.random.default_rng(0)
    with tarfile.open(root / PackedFolder.archive, "w:gz") as archive:
        for part, count in (("train", 8), ("test", 4)):
            content = {
                "data": generator.integers(0, 256, (count, 3072), dtype=np.uint8),
                "fine_labels": [number % 2 for number in range(count)],
            }
            write_pickle(root / part, content, protocol=2)
            archive.add(root / part, f"cifar-100-python/{part}")
            (root / part).unlink()


IDX_FILES = {
    name: header + bytes(number * 7 % 10 for number in range(count * size))
    for name, header, count, size in (
        ("train-images-idx3-ubyte", bytes(16), 20, 784),
        ("train-labels-idx1-ubyte", bytes(8), 20, 1),
        ("t10k-images-idx3-ubyte", bytes(16), 10, 784),
        ("t10k-labels-idx1-ubyte", bytes(8), 10, 1),
    )
}
MNIST = dataclasses.replace(
    SOURCE,
    checksums={f"{mnist.FOLDER}/{name}": hashlib.sha256(content).hexdigest() for name, content in IDX_FILES.items()},
)


def idx_files(*, packed: bool) -> Callable[[Path], None]:
    """Writes MNIST's four files with thirty images."""

    def write(root: Path) -> None:
        (root / mnist.FOLDER).mkdir(parents=True)
        for name, content in IDX_FILES.items():
            file = root / mnist.FOLDER / (f"{name}.gz" if packed else name)
            file.write_bytes(gzip.compress(content, mtime=0) if packed else content)

    return write


KINDS: Mapping[str, Kind] = {
    "parquet": Kind(write=in_toy(write_parquet)),
    "pickle, class_dict": Kind(write=in_toy(write_class_dict)),
    "pickle, labels": Kind(write=in_toy(write_labels)),
    "pickle, protocol 5": Kind(write=in_toy(write_protocol_5)),
    "csv": Kind(write=in_toy(write_lists), pattern="toy/*.csv", has_checksum=True),
    "png": Kind(write=in_toy(folders("PNG")), pattern="toy/*/*", has_checksum=True),
    "jpeg": Kind(write=in_toy(folders("JPEG")), pattern="toy/*/*"),
    "webp": Kind(write=in_toy(folders("WEBP")), pattern="toy/*/*"),
    "bmp": Kind(write=in_toy(folders("BMP")), pattern="toy/*/*"),
    "tar.gz": Kind(write=write_archive, source=ARCHIVE, pattern="*.gz", has_checksum=True),
    "idx": Kind(write=idx_files(packed=False), source=MNIST, pattern="MNIST/raw/*", has_checksum=True),
    "idx.gz": Kind(write=idx_files(packed=True), source=MNIST, pattern="MNIST/raw/*", has_checksum=True),
    "cache": Kind(write=in_toy(folders("PNG")), pattern="decoded/*/*", has_checksum=True, in_cache=True),
}


def loaded(source: Source, root: Path) -> ImageSet:
    """Load and verify the set, which must have the shape that its source declares."""
    if isinstance(source, Photographs):
        num_classes, train, test = source.num_classes, source.train_each, source.test_each
        base = dataclasses.replace(
            MNIST_BASE,
            name="toy",
            image_shape=source.image_shape,
            train_counts=(train,) * num_classes,
            test_counts=(test,) * num_classes,
            source=source,
        )
    else:
        base = dataclasses.replace(MNIST_BASE, name="toy", train_counts=(2,) * 10, test_counts=(1,) * 10, source=source)
    return _verified(base, root)


def _verified(base: BaseSet, root: Path) -> ImageSet:
    known = Datasets({base.name: base}, [root])
    known.verify(base.name)
    return known.load(base.name)


def same(one: ImageSet, other: ImageSet) -> bool:
    """Whether two sets have equal images and labels."""
    return all(
        np.array_equal(a.images, b.images) and np.array_equal(a.labels, b.labels)
        for a, b in ((one.train, other.train), (one.test, other.test))
    )


def outcome_of(source: Source, root: Path, expected: ImageSet) -> Outcome:
    """The loader's outcome for the files as they are now."""
    try:
        return "equal" if same(loaded(source, root), expected) else "changed"
    except DataError:
        return "refused"
    except Exception:  # noqa: BLE001 (that is what is looked for)
        traceback.print_exc(limit=-1, chain=False, file=sys.stdout)
        return "traceback"


def fuzz(name: str, flips: int, seed: int) -> fuzzing.Counts:
    """Damage the files of one kind this many times, one fault at a time."""
    kind, chance = KINDS[name], random.Random(f"{seed} {name}")
    counts: fuzzing.Counts = collections.Counter()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        os.environ["HOME"] = str(root / "home")
        kind.write(root)
        source = kind.source
        if isinstance(source, Photographs) and source.decoded is not None:  # known once the whole set was decoded
            loaded(dataclasses.replace(source, decoded=None), root)
            (made,) = cache_root().glob("decoded/*/made.json")
            source = dataclasses.replace(source, decoded=json.loads(made.read_text())["sha256"])
        mapped = loaded(source, root)
        expected = ImageSet(
            train=dataclasses.replace(mapped.train, images=np.array(mapped.train.images)),
            test=dataclasses.replace(mapped.test, images=np.array(mapped.test.images)),
        )
        files = sorted(path for path in (cache_root() if kind.in_cache else root).glob(kind.pattern) if path.is_file())
        for _ in range(flips):
            file = chance.choice(files)
            content = file.read_bytes()
            if not kind.in_cache:
                shutil.rmtree(cache_root(), ignore_errors=True)
            file.write_bytes(fuzzing.damage(content, chance))
            outcome = outcome_of(source, root, expected)
            counts[outcome] += 1
            if is_fault(name, outcome):
                print(f"  {name}: {outcome} by a damaged {file.relative_to(root)}")
            file.write_bytes(content)
    return counts


def is_fault(name: str, outcome: str) -> bool:
    """Whether the outcome is our fault; without a checksum, a change may go unnoticed."""
    return outcome == "traceback" or (outcome == "changed" and KINDS[name].has_checksum)


def main() -> int:
    """Damage every kind and print one line each; return 0 if nothing is wrong."""
    kinds = {name: "checksum" if kind.has_checksum else "no checksum" for name, kind in KINDS.items()}
    return fuzzing.main(__doc__, kinds, fuzz, OUTCOMES, is_fault)


if __name__ == "__main__":
    warnings.simplefilter("error")  # a warning would reach the user's terminal
    sys.exit(main())
