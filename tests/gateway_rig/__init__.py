"""What the gateway's contract tests and simulations stand on: the real process, engines and a client of bytes, a queue on virtual time."""
