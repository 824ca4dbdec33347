"""Which requests start, wait or are rejected: queue, fairness, concurrency limits, memory for bodies. May import callers and below."""
