"""MLflow: a projection of the store, written by a separate process."""
