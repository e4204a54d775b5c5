"""Indexes on disk: build, open and search them."""
