"""Names of OpenRLHF that are replaced after its modules were imported, each with its reason."""
