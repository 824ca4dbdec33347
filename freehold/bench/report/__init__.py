"""A bench as a table and as a page; pure. May import `analysis`."""
