"""A model on questions: episodes, scores, comparison, report."""
