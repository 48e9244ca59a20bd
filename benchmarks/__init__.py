"""Programs that measure and report; none of them fails on a number. Run as `python -m benchmarks.NAME --help`."""
