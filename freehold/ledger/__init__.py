"""Who used what: one short record per request, spooled in memory, kept in SQLite, added up and reconciled."""
