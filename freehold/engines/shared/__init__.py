"""What several engine files use: exit rules, flag lists, the check of options, pages of counters. Pure; may import `engines.base`."""
