"""Operations around trials: sweeps, executors, the results store, tables, the command line."""
