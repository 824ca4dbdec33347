"""Commands that compare: plan, size, review, bench. May import terminal."""
