"""Small members in one go against one after another: throughput of the seven members of `models/digits`.

One server that may choose, and one with ANYTIME_EXECUTION=sequential; both get the same load in turn, in a new order
each round, and what is compared is the median of the rounds' ratios.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np

from benchmarks.arguments import count, number
from benchmarks.load import Load, closed_loop, post, ratios
from benchmarks.machine import describe
from benchmarks.parallel import heats, steps_run
from benchmarks.repository import MODELS
from benchmarks.server import Wire, serving
from benchmarks.table import percentile, render
from bundle import open_bundle
from service import npy

SETTINGS = ("auto", "sequential")
CONNECTIONS = (1, 8, 64)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=number(0.01), default=1.0, help="of load, each time a server is asked")
    parser.add_argument("--rounds", type=count(), default=9)
    options = parser.parse_args(arguments)
    print(f"### Small members in one go\n\n{describe()}\n")
    with ExitStack() as stack:
        addresses, wires = {}, {}
        for name in SETTINGS:
            server = stack.enter_context(serving(MODELS, models="digits", device="cpu", execution=name))
            addresses[name], wires[name] = server.address, Wire(server.address)
            stack.callback(wires[name].close)
        rows = [_compare(addresses, wires, connections, options.seconds, options.rounds) for connections in CONNECTIONS]
        execution = wires["auto"].get("/models/digits")["execution"]
    print(
        f"digits, all 7 members, one row a request, `.npy`, closed loop, {options.rounds} rounds of "
        f"{options.seconds:g} s, medians; ratios are of `auto` to `sequential`, round by round; p50 and p99 in ms.\n"
    )
    header = ("conns", *(f"{name} {figure}" for name in SETTINGS for figure in ("req/s", "p50", "p99", "steps")))
    print(render((*header, "rate x", "p99 x"), rows))
    print(f"\nAt warm-up `auto` measured, for members {_members(execution)}\n")
    print(heats(execution["groups"], "in one go"))


def _compare(
    addresses: dict[str, str], wires: dict[str, Wire], connections: int, seconds: float, rounds: int
) -> tuple[str, ...]:
    digits = open_bundle(MODELS, "digits").manifest
    zeros = np.zeros((1, *digits.input.shape), digits.input.dtype)
    request = post("/predict", npy.encode(zeros), content_type=npy.MEDIA_TYPE, accept=npy.MEDIA_TYPE)
    loads: dict[str, list[Load]] = {name: [] for name in wires}
    steps = dict.fromkeys(wires, 0.0)
    shuffled = random.Random(0)
    for turn in range(1 + rounds):
        for name in shuffled.sample(SETTINGS, len(SETTINGS)):
            before = steps_run(wires[name])
            load = closed_loop(addresses[name], request, connections, seconds)
            if turn:
                steps[name] += steps_run(wires[name]) - before
                loads[name].append(load)
    figures: list[str] = [str(connections)]
    for name, own in loads.items():
        figures.append(f"{percentile([load.rate for load in own], 0.5):.0f}")
        for share in (0.5, 0.99):
            figures.append(f"{percentile([percentile(load.latencies_s, share) for load in own], 0.5) * 1e3:.2f}")
        figures.append(f"{steps[name] / sum(len(load.latencies_s) for load in own):.2f}")
    return (*figures, *ratios(loads["auto"], loads["sequential"]))


def _members(execution: dict[str, Any]) -> str:
    return "; ".join(f"{group['members'][0]} to {group['members'][-1]}" for group in execution["groups"])


if __name__ == "__main__":
    main()
