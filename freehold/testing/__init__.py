"""Check kits and the fake engine, shipped for drills and for engines that live elsewhere."""
