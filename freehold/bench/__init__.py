"""Measuring engines: the same load on each, its figures with their spread, and which one to serve with.

It starts real engines through the fleet's own launcher, alone, loads them directly or through a real gateway, and ends
them. What it works out (loads, figures, the choice) is pure; what runs is `drive`, `stage`, `watch` and `run`. It decides
nothing about hardware and buys nothing: `freehold size` and `plan` take its results.
"""
