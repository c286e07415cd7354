"""Search engines behind one small asynchronous interface."""
