"""One record per request and what records add up to; pure. Imports nothing else of ledger."""
