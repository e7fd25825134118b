"""The harness: many runs, their search, their records. `python -m study --help` is its door."""
