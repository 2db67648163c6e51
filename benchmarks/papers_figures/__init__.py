"""What benchmarks/papers.py puts side by side, a file per table."""
