"""Puts the load on: engines started alone, requests driven, the machine watched. May import `analysis`."""
