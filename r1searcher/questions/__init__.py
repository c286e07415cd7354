"""Questions with gold answers: the shapes they come in, the named datasets, and what is odd about them."""
