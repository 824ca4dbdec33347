"""Which way of serving wins, what would change that, and what to do next. May import `pricing`, `lines` and `model`."""
