"""Quarry turns decoder language models into dense retrievers and measures how good each one is."""

__version__ = "0.1.0"
