"""Models as folders on this machine: the demo's, and those of the Hugging Face hub."""
