from __future__ import annotations

import socket

from service.server import listen
from service.settings import Settings


def test_no_part_of_an_answer_waits_for_the_acknowledgement_of_another():
    listening = listen(Settings(port=0))
    assert [one.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) for one in listening] == [1]
    with listening[0] as one, socket.create_connection(one.getsockname()):
        accepted, _ = one.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
