"""The rules of thumb of guides, each checked with the team's own numbers. May import `pricing`, `lines` and `model`."""
