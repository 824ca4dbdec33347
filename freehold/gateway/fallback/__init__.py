"""Requests that other providers answer, and mirrored copies. May import exchange and below."""
