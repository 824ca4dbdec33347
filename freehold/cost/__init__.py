"""API, rent or buy: one file per cost line, ranges by Monte Carlo, break-evens, rules of thumb, one verdict. Pure."""
