"""Members side by side on the CPU: onnxruntime lets go of Python's lock while it runs.

Each member of a wave has a second session here, with its share of the threads, so that together they use no more
cores than one member alone does.
"""

from __future__ import annotations

from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor, wait

from bundle import Bundle
from service.engine.member import CpuMember
from service.engine.step import Step
from service.engine.ticket import Logits
from service.engine.waves import wide_waves


class CpuLanes:
    """Runs waves on as many threads as one member alone may use, two at least."""

    def __init__(self, threads: int) -> None:
        self.count = threads
        self._pool = ThreadPoolExecutor(threads, "lane")
        self._members: dict[str, dict[int, CpuMember]] = {}

    def load(self, model: str, bundle: Bundle) -> None:
        """Open a session for each member of a wave of several; see `Executor.load`."""
        self._members[model] = {
            index: CpuMember(bundle, index, self.count // min(len(wave), self.count))
            for wave in wide_waves(bundle.manifest)
            for index in wave
        }

    def unload(self, model: str) -> None:
        """Free the sessions of a model; see `Lanes.unload`."""
        self._members.pop(model, None)

    def run(self, step: Step) -> Generator[Logits]:
        """Run a wave; see `Lanes.run`."""
        members = [self._members[step.model][index] for index in step.members]
        feeds = [member.feed(step) for member in members]
        running = [
            self._pool.submit(member.compute, feed, whole=bool(step.tickets))
            for member, feed in zip(members, feeds, strict=True)
        ]
        try:
            for member, future in zip(members, running, strict=True):
                outputs = future.result()
                member.hand_out(step, outputs)
                yield outputs[member.logits]
        finally:
            # After one that raised nobody wants the rest, but the next step must find the lanes free.
            for future in running:
                future.cancel()
            wait(running)
