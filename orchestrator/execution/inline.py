"""The inline executor, which runs trials one after another in this process: for few trials, debuggers and tests."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from crwn import backbone
from crwn.data import BASE_SETS, Datasets
from orchestrator.execution.attempt import attempt
from orchestrator.execution.protocol import Job, TrialUpdate, say_nothing
from orchestrator.execution.resources import check_resources, this_machine
from orchestrator.execution.survey import NodeReport, Questions, look
from orchestrator.sweeps.sweep import Resources


class InlineExecutor:
    """Runs trials one after another. Frozen weights are drawn for each trial."""

    def check(self, resources: Resources) -> None:
        """Check that this machine has the resources that a trial requests.

        Raises:
            UserError: it does not.
        """
        check_resources(resources, [this_machine()])

    def survey(self, questions: Questions) -> Mapping[str, NodeReport | str]:
        """This machine's answer."""
        return {"this machine": look(questions)}

    def run(
        self, job: Job, on_update: Callable[[TrialUpdate], None], on_wait: Callable[[str], None] = say_nothing
    ) -> None:
        """Run the trials in order, without waiting for anything."""
        del on_wait
        data = Datasets(BASE_SETS, job.data_roots)
        for assignment in job.assignments:
            for update in attempt(assignment, store=job.store, data=data, backbones=backbone.draw):
                on_update(update)
