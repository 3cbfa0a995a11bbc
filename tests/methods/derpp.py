"""The cases of DER++."""

from __future__ import annotations

from crwn.methods.derpp import DERPPSpec
from tests.methods.case import Case

CASES = {"derpp": Case(method=DERPPSpec())}
