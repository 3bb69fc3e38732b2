"""`make bench`: the tables of benchmarks/README.md, measured here and now."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from benchmarks import lateness, overhead, prefixes, timely


def main(arguments: Sequence[str] | None = None) -> None:
    argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__).parse_args(arguments)
    for benchmark in (prefixes, lateness, overhead, timely):
        benchmark.main([])
        print()


if __name__ == "__main__":
    main()
