"""Rate limits: pure window arithmetic and the actor that admits calls."""
