"""What people say, read and checked: flags, usage files, measured watts, model files. May import every other room of cost, and ledger and weights."""
