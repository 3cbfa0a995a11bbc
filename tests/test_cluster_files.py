"""The cluster files: Ray accepts them, and they say what the rest of the project says."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
CLOUD, ONPREM = ROOT / "cluster.yaml", ROOT / "docs" / "cluster-onprem.yaml"
FILES = pytest.mark.parametrize("file", [CLOUD, ONPREM], ids=lambda path: path.name)

NEVER_COPIED = {"data", "runs", ".venv", ".git", ".ci", "tests", "perf"}


def load(file: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(file.read_text())
    return loaded


def commands(config: Any) -> Iterator[str]:
    """All that a cluster file has run somewhere."""
    for key in (
        "initialization_commands",
        "setup_commands",
        "head_setup_commands",
        "head_start_ray_commands",
        "worker_start_ray_commands",
    ):
        yield from config.get(key, [])


@FILES
def test_ray_accepts_it(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray's own preparation fills in the defaults, then its own validation finds no fault, as `ray up` begins."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    prepared = prepare_config(load(file))
    validate_config(prepared)
    kinds = prepared["available_node_types"]
    workers = [kind for name, kind in kinds.items() if name != prepared["head_node_type"]] or list(kinds.values())
    assert all(kind["max_workers"] >= 1 for kind in workers)
    assert all(0 <= kind.get("min_workers", 0) <= kind["max_workers"] for kind in workers)


@FILES
def test_rays_validation_would_find_a_fault(file: Path) -> None:
    """A key that Ray does not know is refused: the test above can fail."""
    from jsonschema import ValidationError
    from ray.autoscaler._private.util import prepare_config, validate_config

    with pytest.raises(ValidationError, match="worker_count"):
        validate_config(prepare_config({**load(file), "worker_count": 3}))


def test_the_images_have_the_version_of_ray_that_the_constraints_name() -> None:
    """Ray refuses nodes of another version; workers are for GPUs, the head is not."""
    (version,) = re.findall(r"^ray==(\S+)$", (ROOT / "constraints.txt").read_text(), flags=re.MULTILINE)
    docker = load(CLOUD)["docker"]
    assert docker["head_image"] == f"rayproject/ray:{version}-py311"
    assert docker["worker_image"] == f"rayproject/ray:{version}-py311-gpu"


@FILES
def test_only_the_project_is_copied(file: Path) -> None:
    """Each mount is there, and is a part of the project, the token aside: neither data nor runs nor the environment."""
    mounts = load(file)["file_mounts"]
    tokens = [local for local in mounts.values() if local.startswith("~")]
    assert tokens == ["~/.ray/auth_token"]
    for local in set(mounts.values()) - set(tokens):
        path = ROOT / local
        assert path.exists(), local
        assert path.resolve().is_relative_to(ROOT)
        assert path.resolve() != ROOT, "the whole folder has data, runs and the environment in it"
        assert not NEVER_COPIED & set(Path(local).parts), local


@FILES
def test_what_is_copied_can_be_installed(file: Path, tmp_path: Path) -> None:
    """The project's metadata is complete: the files named by pyproject.toml and the set-up are copied too."""
    names = {Path(remote).name for remote in load(file)["file_mounts"]}
    project = (ROOT / "pyproject.toml").read_text()
    asked = {"crwn", "orchestrator", "pyproject.toml", "constraints.txt"}
    asked |= set(re.findall(r'^readme = "(.+)"', project, flags=re.MULTILINE))
    asked |= set(re.findall(r'^license-files = \["(.+)"\]', project, flags=re.MULTILINE))
    if any("make -C" in command for command in load(file)["setup_commands"]):
        asked.add("Makefile")
    assert asked <= names


@FILES
def test_every_command_is_one_of_the_shells(file: Path) -> None:
    """bash reads them all: a folded line that lost a quote is found here, not on a machine."""
    bash = shutil.which("bash")
    assert bash is not None
    texts = list(commands(load(file)))
    assert len(texts) > 4
    for text in texts:
        subprocess.run([bash, "-n", "-c", text], check=True)


@FILES
def test_nothing_without_a_password_listens_to_the_network(file: Path) -> None:
    """The dashboard and MLflow are on 127.0.0.1, and Ray asks for its token on the head and on the workers."""
    config = load(file)
    head = "\n".join(config["head_start_ray_commands"])
    assert re.findall(r"--dashboard-host=(\S+)", head) == ["127.0.0.1"]
    assert re.findall(r"mlflow server --host (\S+)", head) == ["127.0.0.1"]
    assert "0.0.0.0" not in file.read_text()  # noqa: S104 (what must not be there)
    if "docker" in config:
        assert "-e RAY_AUTH_MODE=token" in config["docker"]["run_options"]
    else:
        for starts in (head, "\n".join(config["worker_start_ray_commands"])):
            assert re.search(r"export [^;]*RAY_AUTH_MODE=token[^;]*;.*ray start", starts, flags=re.DOTALL)


def test_ray_down_finds_ray(tmp_path: Path) -> None:
    """`ray down` calls `ray stop` in a login shell: the set-up puts it on that shell's path, behind what is there."""
    (setup,) = [command for command in load(ONPREM)["setup_commands"] if ".bashrc" in command]
    ray = tmp_path / "crwn-cluster" / ".venv" / "bin" / "ray"
    ray.parent.mkdir(parents=True)
    ray.touch(mode=0o755)
    environment = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
    for _ in range(2):
        subprocess.run(["bash", "-c", setup], env=environment, check=True)
    ask = "source ~/.bashrc; command -v ray; echo $PATH"
    found = subprocess.run(["bash", "-c", ask], env=environment, capture_output=True, text=True, check=True)
    assert found.stdout.splitlines() == [str(ray), f"/usr/bin:/bin:{ray.parent}"]


def test_rented_workers_come_and_go_and_the_head_stays() -> None:
    """GPU workers are spot instances between a minimum and a maximum; the head is bought, and runs no trial."""
    config = load(CLOUD)
    kinds = config["available_node_types"]
    head = kinds.pop(config["head_node_type"])
    assert "InstanceMarketOptions" not in head["node_config"]
    assert head["resources"] == {"CPU": 0}
    for worker in kinds.values():
        assert worker["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
        assert worker["resources"]["GPU"] >= 1
        assert worker["min_workers"] < worker["max_workers"] <= config["max_workers"]


@FILES
def test_one_variable_says_where_mlflow_keeps_its_runs(file: Path) -> None:
    """SQLite by default; for PostgreSQL, only this place needs to change."""
    settings = re.findall(r"^[^#\n]*MLFLOW_BACKEND_STORE_URI=(\S+)", file.read_text(), flags=re.MULTILINE)
    assert len(settings) == 1
    assert settings[0].startswith("sqlite:///")
    assert "--backend-store-uri" not in file.read_text()
