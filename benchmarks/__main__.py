"""`make bench`: the tables of benchmarks/README.md, measured here and now."""

from __future__ import annotations

from benchmarks import lateness, overhead, prefixes, timely


def main() -> None:
    for benchmark in (prefixes, lateness, overhead, timely):
        benchmark.main()
        print()


if __name__ == "__main__":
    main()
