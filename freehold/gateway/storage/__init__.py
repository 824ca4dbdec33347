"""The keys file and the spend files, read and written by background threads. May import callers."""
