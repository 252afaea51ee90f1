"""Child specs, the pure restart decision, the supervisor actor and the tree of the whole company."""
