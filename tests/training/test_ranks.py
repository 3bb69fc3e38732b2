"""Processes that share the samples find what one process finds."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training.ranked import play
from training import ranks

ROOT = Path(__file__).parent.parent.parent
TWO = 2
PATIENCE_S = 100


def start(folder: Path, port: int, rank: int) -> subprocess.Popen[str]:
    """What `torchrun --nproc-per-node=2` starts, without the seconds that its own process takes."""
    variables = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": TWO, "MASTER_PORT": port}
    loopback = {"MASTER_ADDR": "127.0.0.1", "GLOO_SOCKET_IFNAME": "lo"}
    return subprocess.Popen(
        [sys.executable, "-W", "error::FutureWarning", "-m", "tests.training.ranked", str(folder)],
        cwd=ROOT,
        env={**os.environ, **{name: str(value) for name, value in variables.items()}, **loopback},
        stderr=subprocess.PIPE,
        text=True,
    )


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What one process finds, and what each of two does."""
    folder, port = tmp_path_factory.mktemp("ranks"), free_port()
    processes = [start(folder, port, rank) for rank in range(TWO)]
    threads = torch.get_num_threads()
    try:
        alone = play(folder / "alone")
        for process in processes:
            _, errors = process.communicate(timeout=PATIENCE_S)
            # Not the exit code: once in a while torch aborts a process of gloo while the interpreter shuts down.
            assert (folder / f"{processes.index(process)}.pt").exists(), errors
    finally:
        torch.set_num_threads(threads)
        for process in processes:
            process.kill()
    return alone, [torch.load(folder / f"{rank}.pt") for rank in range(TWO)]


def close(one: torch.Tensor, other: torch.Tensor) -> None:
    torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)


@pytest.mark.slow
def test_pitfall_14_every_sample_has_one_owner_that_updates_it_once(found):
    alone, shares = found
    assert [len(share["S"]) for share in shares] == [75, 75]
    for rank, share in enumerate(shares):
        assert torch.equal(share["samples"], alone["samples"][rank::TWO])
        close(share["S"], alone["S"][rank::TWO])


@pytest.mark.slow
def test_the_members_are_those_of_one_process_and_the_same_everywhere(found):
    alone, shares = found
    for index, member in enumerate(alone["members"]):
        for name, value in member.items():
            first, second = (share["members"][index][name] for share in shares)
            assert torch.equal(first, second), name
            close(first, value)


@pytest.mark.slow
def test_a_candidate_is_judged_on_the_samples_of_all(found):
    alone, shares = found
    for share in shares:
        assert share["decided"] == shares[0]["decided"]
        close(torch.tensor(share["decided"]), torch.tensor(alone["decided"]))
    assert alone["decided"][1][0] != 0, "or nothing was decided"


@pytest.mark.slow
def test_a_process_without_a_sample_in_a_batch_takes_the_same_step(found):
    alone, shares = found
    batches = torch.randperm(9, generator=torch.Generator().manual_seed(4)).split(3)
    assert any(len(set((batch % TWO).tolist())) == 1 for batch in batches), "choose a seed that leaves one idle"
    for name, value in alone["tiny"].items():
        for share in shares:
            close(share["tiny"][name], value)


@pytest.mark.slow
def test_what_the_first_process_prepares_the_others_find(found):
    assert [share["prepared_before"] for share in found[1]] == [False, True]


def test_alone_nothing_is_shared_and_nothing_is_rounded():
    x = torch.randn(5, 3, dtype=torch.float64)
    assert ranks.size() == 1
    assert ranks.first()
    for same in (ranks.share(x), ranks.own(x), ranks.total(x), ranks.largest(x), ranks.mean(x, 5)):
        assert same is x
    assert torch.equal(ranks.logsumexp(x), x.logsumexp(dim=0))
