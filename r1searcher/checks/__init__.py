"""What is checked before a stage starts: one item per check, every problem reported at once."""
