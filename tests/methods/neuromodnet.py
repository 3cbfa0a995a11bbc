"""The cases of NeuroModNet: as it is, pretrained by the first task, and starting from earlier tasks' contexts."""

from __future__ import annotations

from crwn.methods.neuromodnet import NeuroModNetSpec
from tests.methods.case import Case

CASES = {
    "neuromodnet": Case(method=NeuroModNetSpec()),
    # In a few updates at a rate as high as the others' the first task does change the shared weights.
    "neuromodnet-pretrained": Case(
        method=NeuroModNetSpec(pretrained=True), quick=NeuroModNetSpec(pretrained=True, first_task_rate=0.01)
    ),
    "neuromodnet-best": Case(method=NeuroModNetSpec(context_from="best")),
}
