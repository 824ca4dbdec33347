"""Usage rows of other programs and what they add up to as traffic; pure. Reads no file."""
