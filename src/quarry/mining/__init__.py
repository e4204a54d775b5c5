"""Hard negatives and teacher scores: candidates of a query, filters, scores by rerankers."""
