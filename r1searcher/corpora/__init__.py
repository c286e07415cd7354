"""Reads corpora in any format as `Passage` rows."""
