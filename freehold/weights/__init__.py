"""The weight store: sources, hashes, locks, staging."""
