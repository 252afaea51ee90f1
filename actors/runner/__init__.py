"""The actor that performs one job at a time, the context its handler sees, and the built-in job types."""
