"""The run folder: manifest, records, metrics, live view, plots."""
