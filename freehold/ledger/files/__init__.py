"""Usage files read row by row, whatever program wrote them. May import `foreign`, `records` and the journal."""
