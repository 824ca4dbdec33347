"""Freehold: own your LLM inference: decide, serve, operate, rebuild, re-decide.

The package is a house of rooms, drawn in docs/ARCHITECTURE.md; the rules of who may import whom are
import-linter contracts in pyproject.toml. The command line in `freehold.cli` wires the rooms together.
"""

__version__ = "0.1.0"
