"""The rows of a step shared out among threads: each runs the member on a few rows at a time.

Threads that share the work of one operator wait for each other after every operator; here they do once a step. Blocks
are small, so that a thread whose core is taken by somebody else leaves its share to the others.
"""

from __future__ import annotations

from collections import deque
from concurrent.futures import ThreadPoolExecutor, wait

from service.engine.member import Arrays, CpuMember
from service.engine.step import Step
from service.engine.ticket import Logits

BLOCKS_A_THREAD = 3
"""More would share out more evenly, and run fewer rows at a time."""


class SpreadMember:
    """A member with one thread for each of its runs, but several runs at a time.

    Args:
        member: opened with one thread.
        single: runs steps of one row, which cannot be shared out.
        pool: of one thread less than may compute at once: the caller's is the other.
        threads: that may compute at once.
    """

    def __init__(self, member: CpuMember, single: CpuMember, pool: ThreadPoolExecutor, threads: int) -> None:
        self._member = member
        self._single = single
        self._pool = pool
        self._threads = threads

    def run(self, step: Step) -> Logits:
        """Run on the rows of the step's tickets; see `Executor.run`."""
        if step.rows == 1:
            return self._single.run(step)
        member = self._member
        feed, outputs = member.feed(step), member.room(step.rows, whole=bool(step.tickets))
        self._fill(feed, outputs, step)
        member.hand_out(step, outputs)
        logits: Logits = outputs[member.logits]
        return logits

    def _fill(self, feed: Arrays, outputs: Arrays, step: Step) -> None:
        size = -(-step.rows // (self._threads * BLOCKS_A_THREAD))
        blocks = deque(slice(start, start + size) for start in range(0, step.rows, size))

        def work() -> None:
            while True:
                try:
                    block = blocks.popleft()
                except IndexError:
                    return
                self._member.compute_into(
                    {name: values[block] for name, values in outputs.items()},
                    {name: values[block] for name, values in feed.items()},
                    step.halt,
                )

        helpers = [self._pool.submit(work) for _ in range(min(self._threads, len(blocks)) - 1)]
        try:
            work()
        finally:
            # Nobody may write into arrays that have been handed out, or given up.
            wait(helpers)
        for helper in helpers:
            helper.result()
