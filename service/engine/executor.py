"""What runs a member on a device.

One thread runs steps; sessions may be opened on another, so that requests do not wait while a bundle is loaded.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Protocol

from bundle import Bundle
from service.engine.step import Step
from service.engine.ticket import Logits, Rows, Ticket


class Together(Protocol):
    """Runs several members in one step."""

    def run(self, step: Step) -> Generator[Logits]:
        """Run the step's members on the rows of its tickets: the logits of each, (rows, classes), in list order.

        Each comes as soon as may be, and when the last has come the tickets hold what `Executor.run` leaves in them.
        Where a member raises, the generator does so in its turn; when it has ended, raised or been closed, nothing
        runs any more.
        """

    def unload(self, model: str) -> None:
        """Free what a model holds here, if anything: its members will not be run together."""


class Lanes(Together, Protocol):
    """Runs the members of a wave side by side; what each leaves in the tickets is there when its logits come."""

    count: int
    """Members that run at once; those of a longer wave wait for their turn."""


class Fusion(Together, Protocol):
    """Runs groups of members in one go, each group as one graph; if one raises, nothing has changed."""

    def load(self, model: str, bundle: Bundle, groups: Sequence[range]) -> None:
        """Open one session for each group of a bundle that is loaded, on any thread.

        Raises:
            NotFusible: that cannot be done for one of them. Nothing is left behind.
        """


class Executor(Protocol):
    """Runs steps of the bundles it has loaded."""

    provider: str
    """onnxruntime's name of the execution provider in use."""

    halts: bool
    """Whether it ends a run early when the step's `halt` is called; else the run goes on to its end."""

    threads: int
    """That compute at once on the host's cores."""

    @property
    def ungraphed(self) -> int:
        """Members that run without CUDA graphs on a device that has them; each has been warned of in the log."""

    @property
    def lanes(self) -> Lanes | None:
        """Where waves run; None if members can only run one after another."""

    @property
    def fusion(self) -> Fusion | None:
        """Where groups run; None if each member has a run of its own."""

    def load(self, model: str, bundle: Bundle) -> None:
        """Open one session per member, on any thread; steps of the model may come when it has returned.

        The chunk graphs of a bundle are opened as a model of their own, `stream_key(model)`.

        Raises:
            InvalidBundle: a graph cannot be opened, or is not what the manifest says. Nothing is left behind.
        """

    def unload(self, model: str) -> None:
        """Free the sessions of a model, if it is loaded; between two steps, and no further step of it comes."""

    def detach(self, ticket: Ticket) -> None:
        """Let a settled ticket that is kept hold its own rows only, not the tensors of the whole steps it was in."""

    def run(self, step: Step) -> Logits:
        """Run the step's one member on the rows of its tickets, in their order: logits (rows, classes).

        The way that takes least from others if the step says so, else the one chosen for its rows.

        Leaves in each ticket's `activations` what later members will read of its rows, and takes out what
        none of them needs any more. Of a stream it runs one chunk, and stages what that gave. A step without tickets
        runs on zeros and leaves nothing. A step that raises, because it is to end early or for any other reason, has
        changed nothing: it can be run again, with fewer tickets too.
        """

    def ways(self, model: str, member: int) -> int:
        """In how many ways it can run a member, the one that takes least from others first; all give the same."""

    def choose(self, step: Step, way: int) -> None:
        """Run the step's member this way from now on with so many rows, or fewer down to the next number chosen for."""

    def retain(self, ticket: Ticket, rows: Rows) -> None:
        """Forget the ticket's activations of all rows but these, counted among those it had so far."""
