"""What a run will need before anything is started: memory, disk, steps and time, from settings and a model's shape."""
