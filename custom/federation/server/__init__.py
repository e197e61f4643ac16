"""The server: rounds, aggregation, the global model, and the report on rounds."""
