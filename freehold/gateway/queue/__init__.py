"""Who may start, who waits, who is rejected: queue, fairness, concurrency limits, memory for bodies. May import callers and below."""
