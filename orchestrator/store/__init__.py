"""What is kept of sweeps and trials, in a folder or on object storage: the only truth about what was computed."""
