"""The cases of SupSup."""

from __future__ import annotations

from crwn.methods.supsup import SupSupSpec
from tests.methods.case import Case, Tolerances

# Its weights have one magnitude and the digits 17 grey levels: now and then a sum cancels exactly, and rounding decides
# whether that unit is on. A way of summing that rounds otherwise has moved a loss by .001.
CASES = {"supsup": Case(method=SupSupSpec(), tolerances=Tolerances(loss=5e-3, accuracy=4 / 360))}
