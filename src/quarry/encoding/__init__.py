"""Texts of any source to vectors with ids, in one process, in shards or by Ray."""
