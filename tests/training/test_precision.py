"""bfloat16 is for the steps of training; what decides, and what is written, is computed in full."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.training.test_views import image_game
from training.bdistil import run_rounds
from training.ensemble import TrainedMember
from training.export import export_members
from training.find_wl import Search, train_candidate
from training.game import Game
from training.networks import Convolutional, Normalise
from training.verdict import judge


def products(game: Game) -> dict[bool, set[torch.dtype]]:
    """Dtypes of what convolutions give while a candidate trains (True) and while it is judged (False)."""
    found: dict[bool, set[torch.dtype]] = {True: set(), False: set()}

    def listen(module: torch.nn.Module, _inputs: object, output: torch.Tensor) -> None:
        if isinstance(module, torch.nn.Conv2d):
            found[module.training].add(output.dtype)

    ensemble = game.empty_ensemble()
    with torch.nn.modules.module.register_module_forward_hook(listen):
        network = train_candidate(game, ensemble, game.trials(0, 0)[0], Search())
        judge(game, ensemble, network, ())
    return found


def test_a_cpu_computes_in_float32_unless_told_otherwise(tmp_path: Path):
    assert products(image_game(tmp_path)) == {True: {torch.float32}, False: {torch.float32}}


def test_only_training_steps_are_rounded(tmp_path: Path):
    game = image_game(tmp_path, precision="bfloat16", augment="none")
    assert products(game) == {True: {torch.bfloat16}, False: {torch.float32}}


def test_pitfall_11_a_verdict_does_not_depend_on_the_precision(tmp_path: Path):
    games = [image_game(tmp_path, precision=precision) for precision in ("float32", "bfloat16")]
    ensemble = run_rounds(games[1]).ensemble
    assert ensemble.S_train_NL.dtype == torch.float64
    network = train_candidate(games[1], ensemble, games[1].trials(0, 2)[0], Search())
    exact, rounded = (judge(game, ensemble, network, (0, 1)) for game in games)
    assert exact == rounded


def test_a_network_with_channels_last_is_exported_like_any_other(tmp_path: Path):
    game = image_game(tmp_path)
    ensemble = game.empty_ensemble()
    normalise = Normalise.of(game.data.train.x)
    network = Convolutional(widths=(2, 3)).build(normalise, (1, 8, 8), 3).to(memory_format=torch.channels_last)
    ensemble.add(TrainedMember(network.finish(), (), 0, None))
    (graph,) = export_members(ensemble)  # which checks parity
    assert len(graph.content) > 1000


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_kernels_have_their_channels_last_where_products_are_rounded(tmp_path: Path, precision: str):
    game = image_game(tmp_path, precision=precision)
    network = game.build(game.trials(0, 0)[0], 0)
    kernels = [module.weight for module in network.modules() if isinstance(module, torch.nn.Conv2d)]
    found = {kernel.is_contiguous(memory_format=torch.channels_last) for kernel in kernels if kernel.shape[1] > 1}
    assert found == {precision == "bfloat16"}
