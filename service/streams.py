"""The streams that are open: how many there may be, what they may hold together, and how all of them end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from service.errors import TooManyStreams
from service.mailbox import Mailbox


class Streams:
    """Used on the event loop's thread only.

    Args:
        max_streams: streams that may be open at once.
        max_bytes: what they may hold together, each counted with the most it can ever hold.
    """

    def __init__(self, max_streams: int, max_bytes: int) -> None:
        self._max_streams = max_streams
        self._max_bytes = max_bytes
        self._open: set[Mailbox] = set()
        self._size = 0

    def __len__(self) -> int:
        return len(self._open)

    @contextmanager
    def open(self, mailbox: Mailbox, size: int) -> Iterator[None]:
        """Count a stream of at most `size` bytes until the block ends.

        Raises:
            TooManyStreams: there is no room for it.
        """
        if len(self._open) >= self._max_streams or self._size + size > self._max_bytes:
            raise TooManyStreams(f"{len(self._open)} streams are open, as many as may be: try again later.", 1)
        self._open.add(mailbox)
        self._size += size
        try:
            yield
        finally:
            self._open.discard(mailbox)
            self._size -= size

    def drain(self) -> None:
        """Let each stream answer the chunk it is at, and end."""
        for mailbox in self._open:
            mailbox.stop()
