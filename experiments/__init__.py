"""What a user starts: each module with a `main` is a command."""

import sys

if sys.argv[:1] == ["-m"]:  # as a command: `python -m` imports this package before it knows its own name
    from experiments import streams

    streams.stop_at_once()
