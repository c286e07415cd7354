"""Names of OpenRLHF that are replaced after import, each with its reason."""
