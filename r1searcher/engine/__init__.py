"""Everything that knows OpenRLHF, vLLM or Ray."""
