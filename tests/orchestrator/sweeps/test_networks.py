"""Networks of a user's own in sweeps: where they stand, and what is refused at once, before anything starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from crwn.methods.protocol import NETWORKS
from crwn.plugins import provider
from crwn.trial_spec import code_of_trial, used_by
from orchestrator.errors import UserError
from orchestrator.sweeps.reading import load_sweep
from orchestrator.sweeps.sweep import Sweep
from tests.plugged import NETWORK, OF_NETWORK
from tests.refusals import refused

pytestmark = pytest.mark.usefixtures("no_plugins")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A sweep with its plug-in."""
    (tmp_path / "sweep.yaml").write_text(OF_NETWORK)
    (tmp_path / "my_network.py").write_text(NETWORK)
    return tmp_path


def load(folder: Path, methods: str | None = None) -> Sweep:
    """The sweep, with other methods if given."""
    file = folder / "sweep.yaml"
    if methods is not None:
        file.write_text(OF_NETWORK.replace(OF_NETWORK.splitlines()[-1], f"methods: {methods}"))
    return load_sweep(file, plugins=[folder / "my_network.py"])


def test_its_name_is_a_scale(folder: Path) -> None:
    """`network` is short for one scale; nothing else of a trial says that the network is of a plug-in."""
    sweep = load(folder)
    assert [(cell.method, cell.scale) for cell in sweep.cells] == [
        ("finetune", "small"),
        ("er", "small"),
        ("er", "FC16"),
    ]
    assert sweep.cells[0].trials == load(folder, "{finetune: {scales: [small]}}").cells[0].trials
    assert sweep.cells[0].blueprint.params_per_task == 4 * 9 + 4 + 8 + 4 * 64 * 10 + 10
    plugin = provider(NETWORKS, "small")
    assert sweep.plugins == (plugin,)
    assert [used_by(trial) for trial in sweep.trials] == [(plugin,), (plugin,), ()]
    codes = [code_of_trial(trial).added for trial in sweep.trials]
    assert codes[0] == codes[1] is not None
    assert codes[2] is None


def test_built_in_networks_keep_their_identity(folder: Path) -> None:
    """A trial's JSON has its scale and no word of networks."""
    one, other = load(folder, "{er: {scales: [small, FC16]}}").trials
    assert one.canonical_json() == other.canonical_json().replace('"FC16"', '"small"')


def test_all_faults_are_named_at_once(folder: Path) -> None:
    """Methods that take no such network, paths, unknown names, settings that are not its own: each at its place."""
    methods = """
  supsup: {network: small}
  finetune: {network: torchvision.models.resnet18}
  er: {scales: [small, smal]}
  ewc: {network: small, scales: [FC16]}
  si: {}
  lwf: {network: small, settings: {biases: false}}
"""
    codes = ("network-and-scales", "missing-key", "scale-of-other-methods", "network-is-a-path", "unknown-scale")
    with pytest.raises(UserError) as caught:
        load(folder, methods)
    said = str(caught.value)
    assert set(caught.value.codes) == {*codes, "biases-of-own-network"}
    for place in (
        "supsup.network: ",
        "finetune.network: ",
        "er.scales[1]: ",
        "ewc.network: ",
        "si.scales: ",
        "lwf: biases: ",
        "'torchvision.models.resnet18'",
        "--plugin",
    ):
        assert place in said


@pytest.mark.parametrize(
    ("old", "new", "code", "says"),
    [
        ("return nn.Sequential(", "return dict(", "network-not-built", "TypeError"),
        ("width, num_classes)", "width, 3)", "network-scores-unfit", "[2, 3]"),
        ("NETWORKS = {", "import random\nNETWORKS = {", None, ""),
        ('{"small": small}', '{"dynamos": small}', "name-taken", "'dynamos'"),
        ('{"small": small}', '{"Small": small}', "name-unfit", "'Small'"),
        ('{"small": small}', '{"small": 3}', "plugin-entry-unfit", "(image, num_classes)"),
    ],
)
def test_a_faulty_network_is_refused(folder: Path, old: str, new: str, code: str | None, says: str) -> None:
    """When the sweep is read, with its place in it."""
    assert old in NETWORK
    (folder / "my_network.py").write_text(NETWORK.replace(old, new))
    if code is None:
        load(folder, "{finetune: {network: small}}")
        return
    with refused(UserError, code, says=[says, "methods.finetune.network: " if "network" in code else "plugins[0]: "]):
        load(folder, "{finetune: {network: small}}")
