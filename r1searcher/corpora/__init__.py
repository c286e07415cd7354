"""What people have on disk -> `Passage` rows."""
