"""The cases of MTL."""

from __future__ import annotations

from crwn.methods.mtl import MTLSpec
from tests.methods.case import Case

CASES = {"mtl": Case(method=MTLSpec())}
