"""`crwn data`: lists, downloads and verifies base data sets."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Console

from crwn.benchmarks.features import WeightsFile
from crwn.data import BASE_SETS, DataError, Datasets, datasets
from orchestrator.display import print_line, print_table
from orchestrator.errors import UserError, nearest
from orchestrator.waiting import decoding


def show(data_root: str | None, console: Console) -> None:
    """Print the supported data sets, where each was found, and the folders searched."""
    data = _datasets(data_root)
    rows = []
    for name, base in BASE_SETS.items():
        channels, height, width = base.image_shape
        shape = f"{height}x{width}, {'grey' if channels == 1 else 'colour'}"
        counts = (str(base.num_classes), f"{base.num_train:,}", f"{base.num_test:,}")
        rows.append([name, shape, _place(data, name), *counts])
    print_table(
        console,
        title="base data sets",
        text_columns=["name", "images", "where"],
        number_columns=["classes", "train", "test"],
        rows=rows,
        caption="Searched, in this order:\n" + "\n".join(f"  {root}" for root in data.roots)
        if data.roots
        else "No folder was searched: no home folder; set HOME, or name a folder with --data-root or $CRWN_DATA",
    )


def fetch(name: str, data_root: str | None, console: Console) -> None:
    """Download a data set if it is absent.

    Raises:
        UserError: it is unknown, damaged, or cannot be downloaded; the message says what to do.
    """
    _check_names([name])
    data = ensure([name], data_root, console)
    print_line(console, f"{name}: {_place(data, name)}")


def ensure(
    names: Sequence[str], data_root: str | None, console: Console, weights: Iterable[WeightsFile] = ()
) -> Datasets:
    """Make base sets ready to load: download and decode them if needed, with progress if that takes a while.

    Args:
        names: the sets.
        data_root: the folder to look in first.
        console: receives progress and notes.
        weights: files of trained weights that have to be there too.

    Raises:
        UserError: some are missing or damaged, and cannot be downloaded; the message says what to do for each.
    """
    data = _datasets(data_root)
    faults = []
    for file in weights:
        try:
            file.find(data.roots)
        except DataError as error:
            faults.append(error)
    for name in names:  # download all before decoding the first
        try:
            data.obtain(name)
        except DataError as error:
            faults.append(error)
    if faults:
        raise UserError.of(faults, "\n".join(map(str, faults)))
    for name in names:
        try:
            with decoding(name, console) as on_progress:
                notes = data.ensure(name, on_progress)
        except DataError as error:
            raise UserError(error.codes, str(error)) from error
        for note in notes:
            print_line(console, f"{name}: {note}")
    return data


def verify(names: Sequence[str], data_root: str | None, console: Console) -> bool:
    """Check files against their checksums, and images against the expected counts.

    Args:
        names: the sets to check; default: all that are present.
        data_root: the folder to look in first.
        console: receives one line per set.

    Returns:
        Whether all of them are present and complete; a set that was not named may be absent.
    """
    _check_names(names)
    data = _datasets(data_root)
    all_whole = True
    for name in names or BASE_SETS:
        try:
            if not BASE_SETS[name].is_embedded and data.find(name) is None:
                all_whole = all_whole and not names
                source = BASE_SETS[name].source
                remedy = f"crwn data fetch {name} downloads it" if source.is_fetchable else "; ".join(source.expected)
                print_line(console, f"{name}: absent; {remedy}")
                continue
            data.verify(name)
        except DataError as error:
            all_whole = False
            print_line(console, f"{name}: {error}")
            continue
        base = BASE_SETS[name]
        files = f"{len(base.source.checksums)} checksums, " if base.source.checksums else ""
        print_line(
            console,
            f"{name}: complete; {files}{base.num_train:,} training and {base.num_test:,} test images of "
            f"{base.num_classes} classes; {_place(data, name)}",
        )
    return all_whole


def _place(data: Datasets, name: str) -> str:
    """Where a set is, for display."""
    if BASE_SETS[name].is_embedded:
        return "embedded"
    try:
        root = data.find(name)
    except DataError as error:
        return f"damaged: {error}"
    return "absent" if root is None else str(root)


def _datasets(data_root: str | None) -> Datasets:
    try:
        return datasets(data_root)
    except DataError as error:
        raise UserError(error.codes, str(error)) from error


def _check_names(names: Sequence[str]) -> None:
    for name in names:
        if name not in BASE_SETS:
            raise UserError("unknown-name", f"data set: {nearest(name, BASE_SETS)}")
