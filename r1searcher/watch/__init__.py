"""Watch rules: conditions on the metrics of a stage, evaluated after each step."""
