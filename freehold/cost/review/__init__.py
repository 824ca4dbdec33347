"""The measured month in the same model: what it really cost, and whether going back pays. May import `pricing`, `lines` and `model`."""
