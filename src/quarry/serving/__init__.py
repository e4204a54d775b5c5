"""HTTP server for embeddings and search."""
