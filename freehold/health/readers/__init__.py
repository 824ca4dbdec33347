"""Readers: each brings one part of a View, in the time it is given, and says what it could not read. They judge nothing."""
