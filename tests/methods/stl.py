"""The cases of STL."""

from __future__ import annotations

from crwn.methods.stl import STLSpec
from tests.methods.case import Case

CASES = {"stl": Case(method=STLSpec())}
