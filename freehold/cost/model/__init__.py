"""What everything in cost is made of: inputs, draws, cases, results, and numbers as text. Imports nothing else of cost."""
