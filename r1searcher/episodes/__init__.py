"""Episodes: prompt, turns of model and search engine, trajectory."""
