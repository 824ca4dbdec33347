"""Usage files that others wrote, and Freehold's own ledger, as a team's traffic. Reads only; asks nobody over the network."""
