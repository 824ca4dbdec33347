"""Commands on a stack: init, up, down, status, logs, usage, key, reload, restart. May import terminal."""
