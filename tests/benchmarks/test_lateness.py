from __future__ import annotations

import json

import numpy as np

from benchmarks.lateness import MEMBERS, RUNGS, measure, summarise
from benchmarks.server import Reply

RESERVE_MS = 2.0


class Server:
    """Takes 10 ms for each member, and keeps back the reserve."""

    def predict(self, body: bytes, /) -> Reply:
        wanted = json.loads(body)
        members = wanted.get("max_members", MEMBERS)
        if "deadline_ms" in wanted:
            members = min(members, int((wanted["deadline_ms"] - RESERVE_MS) // 10))
        if members < 1:
            return Reply(504, {}, 0.001)
        return Reply(200, {"members_used": members}, members / 100)


def test_deadlines_go_from_none_to_all_members():
    replies = measure(Server(), np.zeros((1, 1)), RESERVE_MS, requests=3 * RUNGS)
    assert [len(of) for of in replies.values()] == [3] * RUNGS
    used = [of[0].document.get("members_used", 0) for of in replies.values()]
    assert (used[0], used[-1]) == (0, MEMBERS)
    assert used == sorted(used)
    shortest, *_, longest = summarise(replies).splitlines()[2:]
    assert shortest.split("|")[3:5] == ["    0.0 % ", "       - "]
    assert longest.split("|")[3:5] == ["  100.0 % ", "    6.00 "]
