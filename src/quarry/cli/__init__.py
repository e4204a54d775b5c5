"""The commands: `quarry-train`, `quarry-eval`, `quarry-search` and `python -m quarry`."""
