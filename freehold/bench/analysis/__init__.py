"""What is asked and what came out: loads, sizes, figures, comparisons, the choice; pure. Imports nothing else of bench."""
