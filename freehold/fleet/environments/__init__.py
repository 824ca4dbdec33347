"""Environments that engine programs run in: find, install, remove, and ask the program. May import `fleet.processes`."""
