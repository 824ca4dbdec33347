"""One stack: from a freehold.yaml to what runs, and from one configuration to the next. It may import every room but cli and those above; it prints nothing."""
