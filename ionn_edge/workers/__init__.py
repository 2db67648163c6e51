"""Where clients' graphs run: processes that may do nothing else."""
