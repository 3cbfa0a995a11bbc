"""The cases of PSP."""

from __future__ import annotations

from crwn.methods.psp import PSPSpec
from tests.methods.case import Case

CASES = {"psp": Case(method=PSPSpec())}
