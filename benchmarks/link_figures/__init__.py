"""What benchmarks/link.py measures, a file per group of figures."""
