"""Measured rows of other people's load tests, and the fit of the roofline's vectors to them."""
