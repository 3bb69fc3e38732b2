"""The executor against a bare loop: six CIFAR-sized members in CUDA graphs, on a device that does nothing else.

The bare loop holds six sessions, one binding each, and no requests: it replays the six graphs and fetches the logits
of each, which is the least that stopping between members can cost. The executor does the same for a ticket. The two
run in turn, so that whatever else slows the machine slows both. A stop decision is what the scheduler does between
two members.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnxruntime as ort

from benchmarks.arguments import count
from benchmarks.chain import pixels, write_chain
from benchmarks.machine import describe
from benchmarks.table import percentile, render
from bundle import Bundle
from service.engine.bound import run_options
from service.engine.cost import CostModel
from service.engine.cuda import DeviceExecutor
from service.engine.deadline import Deadline
from service.engine.device import check_cuda
from service.engine.member_cost import MemberCost
from service.engine.profile import Profile
from service.engine.providers import CPU, DeviceUnavailable, Provider, cuda_provider, open_member, with_graphs
from service.engine.scheduler import Scheduler
from service.engine.slots import INPUT, PLAIN_RUNS, Slot
from service.engine.step import Step
from service.engine.ticket import Ticket

MODEL = "chain/1"
MEMBERS = 6
BATCHES = (1, 8, 32, 128)
WARM_RUNS = PLAIN_RUNS + 10


class BareLoop:
    """Sessions, bindings and fixed tensors; nothing that knows of requests."""

    def __init__(self, bundle: Bundle, provider: Provider, device: str, rows: int) -> None:
        # A slot is the tensors and their addresses; all the rest of the executor is left out.
        self._slot = Slot(bundle.manifest, rows, 0, device)
        self._device = device
        self._runs: list[tuple[ort.InferenceSession, ort.IOBinding, ort.OrtValue]] = []
        for member in bundle.manifest.members:
            session = open_member(bundle, member.index, with_graphs(provider) or provider)
            binding = session.io_binding()
            binding.bind_ortvalue_input(bundle.manifest.input.name, self._slot.tensors[INPUT])
            for link in member.connections:
                binding.bind_ortvalue_input(link.input, self._slot.tensors[link.from_member, link.from_output])
            for (index, name), tensor in self._slot.tensors.items():
                if index == member.index:
                    binding.bind_ortvalue_output(name, tensor)
            self._runs.append((session, binding, self._slot.tensors[member.index, member.logits]))
        for _ in range(PLAIN_RUNS):
            for session, binding, _ in self._runs:
                session.run_with_iobinding(binding, run_options(-1))
        self._options = run_options(self._slot.graph_id)

    def run(self, inputs: np.ndarray) -> None:
        """All members on one batch, their logits fetched one after the other."""
        self._slot.tensors[INPUT].update_inplace(inputs)
        for session, binding, logits in self._runs:
            session.run_with_iobinding(binding, self._options)
            logits.numpy()


class Engine:
    """The executor and the scheduler, driven as the worker drives them."""

    def __init__(self, bundle: Bundle, provider: Provider, device: str) -> None:
        self._executor = DeviceExecutor(provider, device)
        self._executor.load(MODEL, bundle)
        costs = CostModel()
        costs.add(MODEL, [MemberCost({size: [1e-6] for size in BATCHES}, 0.95) for _ in range(MEMBERS)])
        self._scheduler = Scheduler(costs, max(BATCHES))
        self._profile = Profile.of(bundle.manifest)
        self.decisions_s: list[float] = []

    def rehearse(self, rows: int) -> None:
        """Let it capture its graphs, as at start-up."""
        for _ in range(WARM_RUNS):
            for member in range(MEMBERS):
                self._executor.run(Step(MODEL, member, (), rows))

    def run(self, inputs: np.ndarray) -> None:
        """One request through all members."""
        now = time.perf_counter()
        ticket = Ticket("r", MODEL, inputs, Deadline.after(now, 60.0, 0.0), self._profile, MEMBERS, MEMBERS)
        self._scheduler.admit(ticket, now)
        step = self._scheduler.next_step(now)
        while step is not None:
            step = self._after(step, self._executor.run(step))
        self._scheduler.take_settled()

    def _after(self, step: Step, logits: np.ndarray) -> Step | None:
        (ticket,) = step.tickets
        ticket.publish(step.member, logits, "mean")
        started = time.perf_counter()
        self._scheduler.complete(step.tickets, started)
        following = self._scheduler.next_step(started)
        self.decisions_s.append(time.perf_counter() - started)
        return following


def measure(bundle: Bundle, provider: Provider, device: str, rows: int, repeats: int) -> list[object]:
    """One line of the table, in microseconds."""
    inputs = pixels(rows)
    bare, engine = BareLoop(bundle, provider, device, rows), Engine(bundle, provider, device)
    engine.rehearse(rows)
    for _ in range(WARM_RUNS):
        bare.run(inputs)
        engine.run(inputs)
    engine.decisions_s.clear()
    taken: dict[str, list[float]] = {"bare": [], "engine": []}
    for _ in range(repeats):
        taken["bare"].append(_seconds(bare.run, inputs))
        taken["engine"].append(_seconds(engine.run, inputs))
    cells = [percentile(taken[name], share) * 1e6 for name in ("bare", "engine") for share in (0.5, 0.99)]
    ratio = percentile(taken["engine"], 0.5) / percentile(taken["bare"], 0.5)
    decision = percentile(engine.decisions_s, 0.5) * 1e6
    return [rows, *(f"{cell:.0f}" for cell in cells), f"{ratio:.2f}", f"{decision:.1f}"]


def _seconds(run: Callable[[np.ndarray], None], inputs: np.ndarray) -> float:
    started = time.perf_counter()
    run(inputs)
    return time.perf_counter() - started


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu exercises the code, no more")
    parser.add_argument("--repeats", type=count(), default=1000)
    parser.add_argument("--batches", type=int, nargs="+", default=list(BATCHES), choices=BATCHES)
    options = parser.parse_args(arguments)
    provider = CPU
    if options.device == "cuda":
        try:
            check_cuda()
        except DeviceUnavailable as reason:
            print(f"benchmarks.gpu needs a CUDA device: {reason}", file=sys.stderr)
            return 2
        provider = cuda_provider()
    header = ("batch", "bare p50 µs", "bare p99", "engine p50 µs", "engine p99", "ratio of p50", "stop decision µs")
    print(f"### Six members on {provider[0]}\n\n{describe()}\n")
    with tempfile.TemporaryDirectory() as folder:
        bundle = write_chain(Path(folder), MEMBERS)
        lines = [measure(bundle, provider, options.device, rows, options.repeats) for rows in options.batches]
    print(render(header, lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
