"""An incident that a person or another tool wrote down, as cases to diagnose. May import incidents and what stands below it."""
