"""One question's way: prompt, turns of model and search engine, trajectory."""
