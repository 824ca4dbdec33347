"""Models and their endpoints: pool, load balancing, outlier detection. May import queue and below."""
