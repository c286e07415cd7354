"""vLLM: sampled tokens for the episode loop, in training (`generator`) and in this process (`inference`)."""
