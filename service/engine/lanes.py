"""Members side by side on the CPU: onnxruntime lets go of Python's lock while it runs.

Each member of a wave has a second session here, with its share of the threads, so that together they use no more
cores than one member alone does.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator
from concurrent.futures import Future, ThreadPoolExecutor, wait

from bundle import Bundle
from service.engine.member import Arrays, CpuMember
from service.engine.own_core import like_the_process
from service.engine.step import Step
from service.engine.ticket import Logits
from service.engine.waves import wide_waves


class CpuLanes:
    """Runs waves on as many threads as one member alone may use, two at least; the caller's is one of them."""

    def __init__(self, threads: int) -> None:
        self.count = threads
        self._pool = ThreadPoolExecutor(threads - 1, "lane", like_the_process)
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
        results: list[Future[Arrays]] = [Future() for _ in members]
        left = deque(range(len(members)))

        def work() -> bool:
            """Run the next member that nobody has begun, if there is one."""
            try:
                at = left.popleft()
            except IndexError:
                return False
            try:
                results[at].set_result(members[at].compute(feeds[at], whole=bool(step.tickets)))
            except Exception as error:
                results[at].set_exception(error)
            return True

        def work_on() -> None:
            while work():
                pass

        helpers = [self._pool.submit(work_on) for _ in range(min(self.count, len(members)) - 1)]
        try:
            for member, result in zip(members, results, strict=True):
                while not result.done() and work():
                    pass
                outputs = result.result()
                member.hand_out(step, outputs)
                yield outputs[member.logits]
        finally:
            # After one that raised nobody wants the rest, but the next step must find the lanes free.
            left.clear()
            wait(helpers)
