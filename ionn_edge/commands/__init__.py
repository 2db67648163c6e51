"""The commands of `ionn edge`, one file for each or for a few that belong together."""
