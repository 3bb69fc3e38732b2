"""What runs a member on a device.

One thread runs steps; sessions may be opened on another, so that requests do not wait while a bundle is loaded.
"""

from __future__ import annotations

from typing import Protocol

from bundle import Bundle
from service.engine.scheduler import Step
from service.engine.ticket import Logits, Rows, Ticket


class Executor(Protocol):
    """Runs steps of the bundles it has loaded."""

    provider: str
    """onnxruntime's name of the execution provider in use."""

    @property
    def ungraphed(self) -> int:
        """Members that run without CUDA graphs on a device that has them; each has been warned of in the log."""

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
        """Run the step's member on the rows of its tickets, in their order: logits (rows, classes).

        Leaves in each ticket's `activations` what later members will read of its rows, and takes out what
        none of them needs any more. Of a stream it runs one chunk, and stages what that gave. A step without tickets
        runs on zeros and leaves nothing. A step that raises has changed nothing: it can be run again with fewer
        tickets.
        """

    def retain(self, ticket: Ticket, rows: Rows) -> None:
        """Forget the ticket's activations of all rows but these, counted among those it had so far."""
