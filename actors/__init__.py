"""The company: supervised actors that perform the jobs."""
