"""A store at any kind of address."""

from __future__ import annotations

import pytest

from orchestrator.store.store import Store


@pytest.fixture(params=["folder", "objects"])
def anywhere(request: pytest.FixtureRequest) -> Store:
    """A new, empty store on a path and on object storage, which must behave alike."""
    if request.param == "folder":
        made: Store = request.getfixturevalue("store")
        return made
    made = Store(request.getfixturevalue("storage").new_address())
    made.create()
    return made
