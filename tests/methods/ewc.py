"""The cases of online EWC."""

from __future__ import annotations

from crwn.methods.ewc import EWCSpec
from tests.methods.case import Case

CASES = {"ewc": Case(method=EWCSpec())}
