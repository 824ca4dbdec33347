"""What is read in an engine's answer on its way to the client: usage, price, stream log, continuation. May import wire."""
