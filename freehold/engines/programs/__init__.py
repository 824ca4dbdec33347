"""Programs that run in a process of their own, with a Python that may have nothing of Freehold; they may import each other, and do I/O."""
