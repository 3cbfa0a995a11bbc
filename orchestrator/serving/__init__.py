"""Finished trials as MLflow models: registered, and served on this machine."""

from orchestrator.tracking import connecting  # noqa: F401 (configures MLflow before any file here imports it)
