"""`ionn`, which is `python -m ionn_client`, too."""

from __future__ import annotations

from ionn_client.interrupt import leaving_at_once


def main() -> None:
    """Run the command line. Exit codes: 2 what was typed is wrong, 1 it failed, 130 Ctrl-C."""
    with leaving_at_once():
        from ionn_client import cli
    cli.main()


if __name__ == "__main__":
    main()
