"""The base sets that are known."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from crwn.data import BASE_SETS, GreyBase, data_roots, datasets
from crwn.data.verified import VerifiedFiles


def test_every_base_set_is_under_its_own_name() -> None:
    """The name in a sweep, in the registry and in errors is the same."""
    assert {name: base.name for name, base in BASE_SETS.items()} == {name: name for name in BASE_SETS}


def test_the_grey_sets_are_those_that_a_sweep_may_name() -> None:
    """The choices of a benchmark's `base` are the registered sets with one channel."""
    grey = {name for name, base in BASE_SETS.items() if base.image_shape[0] == 1}
    assert set(get_args(GreyBase)[1].names()) == grey


@pytest.mark.parametrize("name", BASE_SETS)
def test_checksums_are_sha256_of_paths_below_the_data_root(name: str) -> None:
    """Of verified files all that is expected has one."""
    source = BASE_SETS[name].source
    if isinstance(source, VerifiedFiles):
        assert tuple(source.checksums) == source.expected
    for file, digest in source.checksums.items():
        assert not Path(file).is_absolute()
        assert ".." not in Path(file).parts
        assert len(bytes.fromhex(digest)) == 32


def test_datasets_searches_the_usual_folders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The shortcut looks where `data_roots` says."""
    monkeypatch.setenv("CRWN_DATA", str(tmp_path))
    assert datasets().roots == data_roots()
    assert datasets(str(tmp_path)).roots == data_roots(str(tmp_path))
