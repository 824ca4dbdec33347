"""Replicas: decide (pure), run (the single writer), launch, and the control socket."""
