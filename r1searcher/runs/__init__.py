"""The run folder: its files, what each holds, and its settings."""
