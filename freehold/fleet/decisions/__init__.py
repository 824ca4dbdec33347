"""What the fleet knows and what to do next, as values and functions. Pure; imports no other part of `fleet`."""
