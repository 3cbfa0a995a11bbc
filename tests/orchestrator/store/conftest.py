"""A store wherever it may be, for the tests of what it keeps."""

from __future__ import annotations

import pytest

from orchestrator.store.store import Store


@pytest.fixture(params=["folder", "objects"])
def anywhere(request: pytest.FixtureRequest) -> Store:
    """A new, empty store on a path and on object storage: what is kept is the same."""
    if request.param == "folder":
        made: Store = request.getfixturevalue("store")
        return made
    made = Store(request.getfixturevalue("storage").new_address())
    made.create()
    return made
