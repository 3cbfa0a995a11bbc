"""Running trials: what a store lacks, where it is computed, and what is shown meanwhile."""
