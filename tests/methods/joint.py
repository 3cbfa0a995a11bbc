"""The cases of joint training."""

from __future__ import annotations

from crwn.methods.joint import JointSpec
from tests.methods.case import Case

CASES = {"joint": Case(method=JointSpec())}
