"""API keys in a running gateway: records, rate limits, grants, spend. May import answers, counters and wire."""
