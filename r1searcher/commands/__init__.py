"""The commands of `r1s`: each parses its options, calls one function and prints; heavy imports stay inside it."""
