"""Declared metrics and bounded logs that never make the work wait."""
