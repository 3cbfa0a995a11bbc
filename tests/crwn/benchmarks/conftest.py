"""What tests of benchmarks share."""

from __future__ import annotations

from pathlib import Path

import pytest

from crwn.data import BASE_SETS, Datasets


@pytest.fixture(scope="session")
def mnist(data_root: Path) -> Datasets:
    """Real MNIST, if it is available."""
    known = Datasets(BASE_SETS, roots=[data_root])
    if known.find("mnist") is None:
        pytest.skip(f"needs MNIST: {data_root} does not hold it")
    return known
