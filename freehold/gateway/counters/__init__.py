"""What is counted: metrics, and numbers that several worker processes share. Imports no other part of the gateway."""
