"""What the gateway's contract tests stand on: the real gateway process, engines made of bytes, and a client of bytes."""
