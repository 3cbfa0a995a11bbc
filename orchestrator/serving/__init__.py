"""Finished trials as MLflow models: registered, and served on this machine."""

from orchestrator.tracking import connecting  # noqa: F401 (makes MLflow's settings, before a file here imports it)
