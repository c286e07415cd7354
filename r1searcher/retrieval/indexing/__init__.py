"""Building indexes: a corpus in, a searchable index out."""
