"""Every performance claim of the README as a command: `make bench`, or one at a time as `python -m benchmarks.NAME`."""
