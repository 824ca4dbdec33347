"""Whether this machine can run a configuration: what `freehold doctor` and `freehold engine check` look at. It may import all of stack."""
