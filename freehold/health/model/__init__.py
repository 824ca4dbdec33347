"""The values that health passes between its parts: views of a node, probes' findings, hysteresis, the snapshot. Imports nothing else of health."""
