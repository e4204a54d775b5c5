"""Read from a model's files how texts are encoded with it: prompts, pooling, projections."""
