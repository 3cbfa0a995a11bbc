"""The cases of SI."""

from __future__ import annotations

from crwn.methods.si import SISpec
from tests.methods.case import Case

CASES = {"si": Case(method=SISpec())}
