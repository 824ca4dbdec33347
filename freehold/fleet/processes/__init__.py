"""Child processes of this machine: launch an engine under its minder, and read /proc. May import `fleet.gpus` and `fleet.decisions`."""
