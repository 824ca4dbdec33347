"""Programs that run in an environment of their own, by path; they import nothing of Freehold."""
