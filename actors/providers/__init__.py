"""The neutral model of an LLM call, one module per wire format, and the actor that makes the calls."""
