"""The cases of A-GEM."""

from __future__ import annotations

from crwn.methods.agem import AGEMSpec
from tests.methods.case import Case

CASES = {"agem": Case(method=AGEMSpec())}
