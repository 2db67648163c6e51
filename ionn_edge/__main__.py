"""`python -m ionn_edge serve` is `ionn edge serve`."""

from ionn_edge.cli import main

if __name__ == "__main__":
    main()
