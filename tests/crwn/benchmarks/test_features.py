"""AlexNet's features in front of two-digit items, with random weights."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision

from crwn import backbone
from crwn.benchmarks import features
from crwn.benchmarks.features import WeightsFile, alexnet, features_of, kept_features
from crwn.benchmarks.items import Items, ItemsSpec, build
from crwn.data import BASE_SETS, DataError, Datasets
from crwn.faults import InvalidError
from crwn.methods.metaplastic import MetaplasticSpec
from crwn.spec import TrainingSpec
from crwn.trial import run_trial
from crwn.trial_spec import TrialSpec
from tests.refusals import refused

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root with a file of weights drawn from a fixed seed, without the dense layers, as features need none."""
    root = tmp_path_factory.mktemp("data")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        drawn = {name: one for name, one in torchvision.models.alexnet().state_dict().items() if "features" in name}
    file = root / "alexnet" / "written.pth"
    file.parent.mkdir()
    torch.save(drawn, file)
    digits = hashlib.sha256(file.read_bytes()).hexdigest()[:8]
    return file.rename(file.with_name(f"alexnet-random-{digits}.pth"))


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Features are kept below a test's own home folder, where no downloads are either."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("TORCH_HOME", raising=False)


def spec_of(weights: Path) -> ItemsSpec:
    return ItemsSpec(
        base="digits", num_tasks=3, images=10, test_images=8, pool=1, features="alexnet", weights=weights.stem[-8:]
    )


def items_of(weights: Path, digits: Datasets) -> Items:
    images = dataclasses.replace(digits.load("digits"), weights=weights)
    return build(spec_of(weights), images, 0, CPU)


# Features


def test_features_are_what_torchvision_computes(weights: Path) -> None:
    """For one image: centred in a square, resized by interpolate, normalised, and passed through the whole network."""
    image = np.random.default_rng(0).integers(256, size=(1, 1, 28, 56), dtype=np.uint8)
    network = torchvision.models.alexnet()
    network.load_state_dict(torch.load(weights, weights_only=True), strict=False)
    square = torch.zeros(1, 3, 56, 56)
    square[:, :, 14:42] = torch.from_numpy(image).float() / 255
    resized = torch.nn.functional.interpolate(square, size=(224, 224), mode="bilinear")
    normalise = torchvision.transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    expected = network.avgpool(network.features(normalise(resized)))
    torch.testing.assert_close(torch.from_numpy(features_of(alexnet(weights), image)), expected.detach())


def test_features_are_scaled_to_bytes_by_the_first_images(weights: Path) -> None:
    """A thousandth of the first images' features is clipped; all sets have the same scale."""
    generator = np.random.default_rng(0)
    first, other = (generator.integers(256, size=(6, 1, 8, 16), dtype=np.uint8) for _ in range(2))
    found = kept_features([first, other], weights)
    exact = [features_of(alexnet(weights), images) for images in (first, other)]
    largest = np.quantile(exact[0], 0.999)
    for one, each in zip(found, exact, strict=True):
        assert one.shape == (6, 256, 6, 6)
        np.testing.assert_allclose(one / 255, np.minimum(each / largest, 1), atol=0.5 / 255 + 1e-6)


def test_features_are_computed_once(weights: Path, digits: Datasets, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are cached: another trial with the same seed reads them; a damaged file is replaced."""
    first = items_of(weights, digits)
    (kept,) = (Path.home() / ".cache" / "crwn" / "features").iterdir()
    with monkeypatch.context() as patch:
        patch.setattr(features, "alexnet", None)
        assert torch.equal(items_of(weights, digits).train_split(1).images, first.train_split(1).images)
    kept.write_bytes(kept.read_bytes()[:1000])
    assert torch.equal(items_of(weights, digits).test_split(2).images, first.test_split(2).images)


def test_a_trial_learns_on_features(weights: Path) -> None:
    """It needs only the data root; its inputs are 256 x 6 x 6, and the weights are part of its identity."""
    training = TrainingSpec(learning_rate=0.05, optimizer="sgd", batch_size=10, epochs_per_task=3)
    spec = TrialSpec(
        method=MetaplasticSpec(steepness=50.0), benchmark=spec_of(weights), scale="FC16", seed=0, training=training
    )
    assert spec.benchmark.problem().input_shape == (256, 6, 6)
    finished = run_trial(spec, data=Datasets(BASE_SETS, [weights.parent.parent]), backbones=backbone.draw)
    assert finished.rows[0].accuracy == 1
    others = dataclasses.replace(spec, benchmark=dataclasses.replace(spec_of(weights), weights="0123abcd"))
    assert others.trial_id != spec.trial_id
    with pytest.raises(DataError, match="0123abcd"):
        run_trial(others, data=Datasets(BASE_SETS, [weights.parent.parent]), backbones=backbone.draw)


# What is refused


def test_weights_are_found_where_the_user_has_them(weights: Path, tmp_path: Path) -> None:
    """In the network's folder of a data root, in the root itself, or where torch keeps downloads."""
    wanted = WeightsFile(network="alexnet", digits=weights.stem[-8:])
    downloads = Path.home() / ".cache" / "torch" / "hub" / "checkpoints"
    for folder in (tmp_path, downloads):
        folder.mkdir(parents=True, exist_ok=True)
        placed = folder / weights.name
        placed.write_bytes(weights.read_bytes())
        assert wanted.find([tmp_path]) == placed
        placed.unlink()
    with refused(DataError, "weights-missing", says=[wanted.pattern, str(tmp_path / "alexnet"), str(downloads)]):
        wanted.find([tmp_path])


def test_damaged_weights_are_refused(weights: Path, tmp_path: Path) -> None:
    """A file without the checksum in its name, and one of another network."""
    damaged = tmp_path / weights.name
    damaged.write_bytes(weights.read_bytes()[:-1])
    with refused(DataError, "weights-damaged", says=[str(damaged), weights.stem[-8:]]):
        WeightsFile(network="alexnet", digits=weights.stem[-8:]).find([tmp_path])
    for content in (b"no weights", b""):
        damaged.write_bytes(content)
        with refused(DataError, "weights-of-another", says=[str(damaged)]):
            alexnet(damaged)
    torch.save({"features.0.weight": torch.zeros(3)}, damaged)
    with refused(DataError, "weights-of-another", says=[str(damaged)]):
        alexnet(damaged)


def test_settings_of_pixels_are_refused_with_features() -> None:
    """All at once; likewise `weights` without features."""
    with refused(InvalidError, "pixels-of-features", "weights-not-digits", says=["pool, normalise: ", "'7BE5BE79'"]):
        ItemsSpec(base="digits", features="alexnet", pool=2, normalise=True, weights="7BE5BE79")
    with refused(InvalidError, "weights-without-features", says=["weights: ", "'0123abcd'"]):
        ItemsSpec(base="digits", pool=1, weights="0123abcd")
