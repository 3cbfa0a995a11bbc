"""The cases of FlyNet, whose scales are expansions of the image."""

from __future__ import annotations

from crwn.methods.flynet import FlyNetSpec
from tests.methods.case import Case

CASES = {"flynet": Case(method=FlyNetSpec(), scale="2d", trace_scale="4d", table_scale="10d")}
