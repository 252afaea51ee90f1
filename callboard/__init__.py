"""Callboard: durable, supervised LLM work."""
