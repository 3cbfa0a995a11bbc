"""The cases of ER."""

from __future__ import annotations

from crwn.methods.er import ERSpec
from tests.methods.case import Case

CASES = {"er": Case(method=ERSpec())}
