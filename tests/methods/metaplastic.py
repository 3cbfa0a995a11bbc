"""The cases of metaplasticity."""

from __future__ import annotations

from crwn.benchmarks.items import ItemsSpec
from crwn.methods.metaplastic import MetaplasticSpec
from tests.methods.case import Case

QUICK = MetaplasticSpec(steepness=100.0)
"""At the learning rate of the tests, a weight moves so far that the authors' steepness would let none move again."""

CASES = {
    "metaplastic": Case(method=MetaplasticSpec(), quick=QUICK),
    "metaplastic-items": Case(
        method=MetaplasticSpec(),
        quick=QUICK,
        benchmark=ItemsSpec(base="digits", num_tasks=4, outputs=6, images=64, test_images=40, pool=1),
        learning_rate=0.1,
    ),
}
