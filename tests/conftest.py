"""What holds for every test."""

from hypothesis import settings

# The suite tries the same examples every time: a failure that comes and goes helps nobody. To look further: --hypothesis-profile=explore.
settings.register_profile("suite", derandomize=True)
settings.register_profile("explore", derandomize=False, max_examples=1000, print_blob=True)
settings.load_profile("suite")
