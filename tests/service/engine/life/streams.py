"""Sequences that come in chunks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bundle.reference import running_average_chunks
from service.engine.profile import Profile
from service.engine.stream import Stream, stream_key
from service.engine.ticket import StoppedBy, Ticket
from tests.service.engine.life.bundles import STREAM, bundles
from tests.service.engine.life.life import Life
from tests.tiny_stream import CHUNK_STEPS, STEPS
from tests.tiny_stream import FEATURES as STREAM_FEATURES

if TYPE_CHECKING:
    from tests.service.engine.life.world import World

CHUNKS = STEPS // CHUNK_STEPS


def open_stream(world: World) -> None:
    """A sequence comes in chunks, each when the one before has ended."""
    bundle = bundles()[STREAM]
    x = np.random.default_rng(world.dice.randrange(2**32)).normal(size=(1, STEPS, STREAM_FEATURES))
    x = x.astype(np.float32)
    answers = list(running_average_chunks(bundle, x))
    stream, name, total = Stream(bundle.manifest), f"s{len(world.lives)}", len(bundle.manifest.streaming)
    if world.dice.random() < 0.1:
        world.at_fault[name] = world.dice.randrange(total), world.dice.choice(["raise", "once", "nan"])
    last: list[Ticket] = []

    def next_chunk() -> None:
        number = stream.chunks
        if number == CHUNKS or world.dice.random() < 0.1:
            if last:
                world.worker.cancel(last[-1], StoppedBy.ABANDONED)
                world.at(world.clock.now(), lambda: world.closed.append(stream))
            return
        chunk = x[:, number * CHUNK_STEPS : (number + 1) * CHUNK_STEPS]
        part = stream.extend(chunk)
        ticket = Ticket(
            request_id=name,
            model=stream_key(STREAM),
            inputs=chunk,
            deadline=world.deadline(),
            profile=Profile.of(bundle.manifest),
            members_total=total,
            member_limit=total,
            part=part,
        )
        last.append(ticket)
        mine = [one.logits for one in answers if one.steps == (number + 1) * CHUNK_STEPS]
        life = Life(ticket, chunk, mine)

        def on_end() -> None:
            if life.outcome is not StoppedBy.ABANDONED:
                world.at(world.clock.now() + world.dice.choice([0.0, 0.01, 0.1]), next_chunk)

        life.on_end = on_end
        world.counts["chunks"] += 1
        if world.dice.random() < 0.1:
            # The queue was full: the chunk has come, but nobody asks for its answer.
            life.outcome = StoppedBy.DEADLINE
            on_end()
        else:
            world.submit(life)

    next_chunk()
