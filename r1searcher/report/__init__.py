"""Views of records: live view, plots, tables and the page, for runs and for evaluations."""
