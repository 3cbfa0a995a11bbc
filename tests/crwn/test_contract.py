"""The contract for a user's method or network: `crwn new`'s templates keep it, and broken promises are named."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from crwn.contract import CHECKS
from crwn.methods import METHODS, MethodEntry, finetune
from crwn.methods.protocol import NETWORKS
from crwn.plugins import PluginError
from crwn.testing import check_method, check_network
from orchestrator import template
from tests.plugged import METHOD
from tests.refusals import refused

pytestmark = pytest.mark.usefixtures("no_plugins", "one_thread")


def test_the_template_keeps_every_promise(tmp_path: Path) -> None:
    """Given as a file, all of whose methods are checked."""
    file = tmp_path / "mine.py"
    file.write_text(Path(template.__file__).read_text(encoding="utf-8"), encoding="utf-8")
    check_method(file, strength=0.5)
    assert "mine" in METHODS


class Leaky(finetune.Finetune):
    """Fine-tuning that writes during tests, and does not keep what its blueprint counts."""

    def logits(self, state, images, *, training=False, moved=None):  # type: ignore[no-untyped-def]
        for tensor in state.values():
            tensor.data += 1e-3
        return super().logits(state, images, training=training, moved=moved)


def test_broken_promises_are_named_all_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each with what was promised; an entry is checked without being left in the registry."""
    others = {name: entry for name, entry in METHODS.items() if name != "finetune"}
    monkeypatch.setattr(METHODS, "_entries", others)  # all are put back in their order, which documents show
    entry = MethodEntry(spec=finetune.FinetuneSpec, build=Leaky)
    with pytest.raises(ExceptionGroup, match=f"^finetune .* {len(CHECKS)} ") as caught:
        check_method(entry)
    notes = [note for error in caught.value.exceptions for note in error.__notes__]
    assert any("a_test_changes_nothing" in note for note in notes)
    assert not any("the_blueprint_counts" in note for note in notes)
    assert "finetune" not in METHODS


def test_a_faulty_plug_in_is_refused(tmp_path: Path) -> None:
    """As a sweep would refuse it."""
    file = tmp_path / "my_method.py"
    file.write_text(METHOD.replace("frozen=True, ", ""))
    with refused(PluginError, "spec-not-frozen"):
        check_method(file)


class Counting(nn.Module):
    """Its scores depend on a count of updates that is in no buffer."""

    def __init__(self, image: tuple[int, int, int], num_classes: int) -> None:
        super().__init__()
        self.layer = nn.Linear(image[1] * image[2], num_classes)
        self.calls = 0

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.calls += self.training
        scores: torch.Tensor = self.layer(images.flatten(1))
        return scores * (1 + 0.1 * self.calls)


def test_a_network_with_hidden_state_breaks_a_promise() -> None:
    """The state that an interrupted trial would lose; the error names the promise."""
    with pytest.raises(ExceptionGroup) as caught:
        check_network(Counting)
    notes = [note for error in caught.value.exceptions for note in error.__notes__]
    assert any("a_resumed_trial_computes_the_same" in note for note in notes)
    assert "own-network" not in NETWORKS
