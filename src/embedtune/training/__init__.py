"""Fine-tuning, and merging the result with its base."""
