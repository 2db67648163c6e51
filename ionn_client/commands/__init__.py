"""One module per command of `ionn`."""
