"""Running trials: what the store lacks, where to compute it, and progress."""
