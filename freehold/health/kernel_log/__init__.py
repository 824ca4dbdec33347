"""Kernel lines: the formats of saved logs, the events in them, and what NVIDIA's tables say of these; pure. It may import the model."""
