"""What the user wrote: the model of freehold.yaml, its loader, its mistakes, its schema."""
