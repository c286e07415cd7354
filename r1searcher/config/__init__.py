"""The settings as one model, presets as TOML."""
