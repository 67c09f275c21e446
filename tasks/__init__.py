"""What the farm measures: models, inputs, methods and their accuracy. Knows nothing of Ray, Parquet or statistics."""
