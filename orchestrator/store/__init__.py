"""The store of sweeps and trials, in a folder or on object storage: the single source of truth for results."""
