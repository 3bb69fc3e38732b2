"""Which outputs of a graph are read by later ones, and when each has been read for the last time."""

from __future__ import annotations

from collections.abc import Sequence

from bundle import Chunk, Member

Graph = Member | Chunk


def outputs_read_later(graphs: Sequence[Graph], index: int) -> list[str]:
    """Outputs of graph `index` that feed a connection of a later one, in the manifest's order."""
    read = {
        link.from_output for graph in graphs[index + 1 :] for link in graph.connections if link.from_member == index
    }
    return [output.name for output in graphs[index].outputs if output.name in read]


def forget_unread(graphs: Sequence[Graph], done: int) -> list[tuple[int, str]]:
    """Activations (member, output) whose last reader is graph `done`."""
    read_now = {(link.from_member, link.from_output) for link in graphs[done].connections}
    read_later = {(link.from_member, link.from_output) for graph in graphs[done + 1 :] for link in graph.connections}
    return sorted(read_now - read_later)
