"""Collectors: each reads one part of a View within its deadline and reports what it could not read. They judge nothing."""
