"""The commands: `quarry-train`, `quarry-eval` and `python -m quarry`."""
