"""What every package may use: files, JSON, terminal output. Imports nothing of r1searcher but `errors`."""
