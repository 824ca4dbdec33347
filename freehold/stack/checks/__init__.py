"""Whether this machine can run a configuration: the checks of `freehold doctor` and `freehold engine check`. It may import all of stack."""
