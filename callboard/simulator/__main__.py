"""`python -m callboard.simulator`: the simulator in this process until a signal ends it."""

from __future__ import annotations

import sys

from .arguments import config_from, parser
from .serve import run_forever


def main() -> int:
    """Run it. Returns 0 after a signal or the end of watched input, 2 for settings that cannot be used."""
    options = parser().parse_args()
    try:
        run_forever(config_from(options), watch_stdin=options.watch_stdin)
    except (ValueError, OSError) as error:
        sys.stderr.write(f"callboard.simulator: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
