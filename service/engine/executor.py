"""What runs a member on a device.

One thread runs steps; sessions may be opened on another, so that requests do not wait while a bundle is loaded.
"""

from __future__ import annotations

from typing import Protocol

from bundle import Bundle, Manifest
from service.engine.scheduler import Step
from service.engine.ticket import Logits, Ticket


class Executor(Protocol):
    """Runs steps of the bundles it has loaded."""

    provider: str
    """onnxruntime's name of the execution provider in use."""

    @property
    def ungraphed(self) -> int:
        """Members that run without CUDA graphs on a device that has them; each has been warned of in the log."""

    def load(self, model: str, bundle: Bundle) -> None:
        """Open one session per member, on any thread; steps of the model may come when it has returned.

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
        none of them needs any more. A step without tickets runs on zeros and leaves nothing. A step that raises
        has changed nothing: it can be run again with fewer tickets.
        """


def outputs_read_later(manifest: Manifest, index: int) -> list[str]:
    """Outputs of member `index` that feed a connection of a later member, in the manifest's order."""
    read = {
        link.from_output
        for member in manifest.members[index + 1 :]
        for link in member.connections
        if link.from_member == index
    }
    return [output.name for output in manifest.members[index].outputs if output.name in read]


def forget_unread(manifest: Manifest, done: int) -> list[tuple[int, str]]:
    """Activations (member, output) whose last reader is member `done`."""
    read_now = {(link.from_member, link.from_output) for link in manifest.members[done].connections}
    read_later = {
        (link.from_member, link.from_output) for member in manifest.members[done + 1 :] for link in member.connections
    }
    return sorted(read_now - read_later)
