"""Plug-ins for tests, unloaded after each."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from crwn.benchmarks import BENCHMARKS
from crwn.code import module_code
from crwn.data import BASE_SETS
from crwn.methods import METHODS
from crwn.methods.protocol import NETWORKS
from crwn.plugins import MODULE_PREFIX
from orchestrator.execution.other_code import present

METHOD = '''\
"""Fine-tuning under another name, for the tests of plug-ins."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from crwn.methods import MethodEntry
from crwn.methods.plain import PlainNetwork, plain_blueprint, plain_training
from crwn.methods.protocol import Method
from crwn.spec import READ_STRICTLY, PositiveFloat, check_fields, kind_field


@dataclass(frozen=True, slots=True, kw_only=True)
class MineSpec:
    __pydantic_config__: ClassVar[Mapping[str, Any]] = READ_STRICTLY

    kind: str = kind_field("mine")
    strength: PositiveFloat = 0.5

    def __post_init__(self) -> None:
        check_fields(self)

    def training(self, scale):
        return plain_training(0.03)

    def blueprint(self, scale, problem, seed):
        return plain_blueprint(scale, problem, seed, biases=True)


class Mine(Method):
    def __init__(self, spec, surroundings):
        self._network = PlainNetwork(surroundings, biases=True)

    def start_shared(self):
        return self._network.start()

    def logits(self, state, images, *, training=False, moved=None):
        return self._network.logits(state, images, training=training, moved=moved)


METHODS = {"mine": MethodEntry(spec=MineSpec, build=Mine)}
'''
"""A plug-in file with the method `mine`."""

SWEEP = """\
name: mine
seeds: [0]
plugins: [my_method.py]
benchmarks: {seq-digits: {first: 2}}
training: {updates_per_task: 5}
methods: {mine: {scales: [FC16], settings: {strength: 2.0}}}
"""

NETWORK = '''\
"""A network with dropout and batch normalisation, for the tests of plug-ins."""

from torch import nn


def small(image, num_classes):
    channels, height, width = image
    return nn.Sequential(
        nn.Conv2d(channels, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Dropout(0.1),
        nn.Flatten(),
        nn.Linear(4 * height * width, num_classes),
    )


NETWORKS = {"small": small}
'''
"""A plug-in file with the network `small`."""

OF_NETWORK = """\
name: own
seeds: [0]
plugins: [my_network.py]
benchmarks: {seq-digits: {first: 2}}
training: {updates_per_task: 5}
keep_weights: true
methods: {finetune: {network: small}, er: {scales: [small, FC16], settings: {buffer: 20}}}
"""


@contextmanager
def no_traces() -> Iterator[None]:
    """Restore the registries and the modules afterwards."""
    registries = (METHODS, NETWORKS, BENCHMARKS, BASE_SETS)
    before = [set(registry) for registry in registries]
    modules = set(sys.modules)
    try:
        yield
    finally:
        for registry, names in zip(registries, before, strict=True):
            registry.remove(set(registry) - names)
        for name in set(sys.modules) - modules:
            if name.startswith(MODULE_PREFIX):
                del sys.modules[name]
        module_code.cache_clear()
        present.cache_clear()
