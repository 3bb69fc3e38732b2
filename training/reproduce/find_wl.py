"""FIND-WL (Algorithm 2): how often the search succeeds, over initialisations and architectures, and against controls.

The first member is given; the second is searched, once without connections (r = 0) and once with (r = 1). The controls
are candidates that nobody should accept although Definition 1 may, and the teacher itself, which everybody should.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from training import boosting
from training.config import RecipeConfig
from training.data import Data, Split
from training.determinism import derive_seed
from training.ensemble import Ensemble
from training.find_wl import Search, train_candidate
from training.game import Game
from training.networks import Convolutional, FullyConnected, ModelClass, Normalise, ResNet
from training.reproduce import arms
from training.reproduce.bench import Bench
from training.reproduce.experiment import Arm, Cell, Experiment, Values
from training.reproduce.table import arm_of, markdown
from training.verdict import Verdict, decide, judge

INITS = 20
EPOCHS = 10
GAMMA = 0.01
"""Where the barrier is strong enough to matter and the task is still learned: see ablate-gamma."""
ARCHITECTURES: dict[str, ModelClass] = {
    "fully connected": FullyConnected(widths=(12, 12)),
    "convolutional": Convolutional(widths=(2, 4)),
    "residual": ResNet(widths=(4, 8)),
}
CONSTANT = 0.9
"""Size of the constant control's logits, as a share of B."""
EXPANSIONS = {0: "r = 0, unconnected", 1: "r = 1, connected"}
CONTROLS = {"constant": "constant logits", "noise": "random logits", "teacher": "the teacher itself"}


def settings(config: RecipeConfig) -> RecipeConfig:
    """Eq. 6 as printed, `INITS` restarts of each expansion."""
    return dataclasses.replace(
        arms.paper(config), rounds=2, epochs=EPOCHS, gamma=GAMMA, max_search=INITS, connection="residual"
    )


def run(architecture: str) -> Arm:
    """The arm of one architecture."""

    def search(bench: Bench, config: RecipeConfig) -> Values:
        # The class is part of what the checkpoint is known by: the settings of all architectures are the same.
        with bench.game(config, classes=(ARCHITECTURES[architecture],)) as given:
            game = _with_channel(given)
            ensemble = _first_member(game)
            tried = {
                name: [_outcome(judge_trial(game, ensemble, expansion, init)) for init in range(INITS)]
                for expansion, name in EXPANSIONS.items()
            }
            controls = {name: _outcome(verdict) for name, verdict in control_verdicts(game, ensemble).items()}
            return {"tried": tried, "controls": controls}

    return Arm(name=architecture, recipe="digits", run=search, settings=settings)


def judge_trial(game: Game, ensemble: Ensemble, expansion: int, init: int) -> Verdict:
    """Train one candidate for the second member, and judge it."""
    of_expansion = [trial for trial in game.trials(0, 1) if trial.expansion == expansion]
    trial = of_expansion[init]
    network = train_candidate(game, ensemble, trial, Search(attempts=expansion * INITS + init))
    return judge(game, ensemble, network, trial.sources)


def control_verdicts(game: Game, ensemble: Ensemble) -> dict[str, Verdict]:
    """The verdicts on candidates that are not trained."""
    train_NL, validation_NL = (logits_NL.double() for logits_NL in (game.target.train_NL, game.target.validation_NL))
    log_plus_NL, log_minus_NL = boosting.log_weights(ensemble.S_train_NL, game.eta)
    up_L = ((log_plus_NL.exp() - log_minus_NL.exp()).sum(dim=0) > 0).double()
    # As large as may be, of the sign that each label's weights want, and centred.
    constant_L = up_L / up_L.sum().clamp(min=1) - (1 - up_L) / (1 - up_L).sum().clamp(min=1)
    constant_L = CONSTANT * game.B * constant_L / constant_L.abs().max()
    generator = torch.Generator().manual_seed(derive_seed(game.config.seed, "find-wl", "noise"))

    def noise(like_NL: Tensor) -> Tensor:
        drawn_NL = torch.randn(like_NL.shape, generator=generator, dtype=torch.float64)
        return boosting.centre(drawn_NL * float(train_NL.std())).to(like_NL.device)

    candidates = {
        "constant": tuple(boosting.centre(constant_L.expand_as(like_NL)) for like_NL in (train_NL, validation_NL)),
        "noise": (noise(train_NL), noise(validation_NL)),
        "teacher": (train_NL, validation_NL),
    }
    return {name: decide(game, ensemble, f_NL, held_NL) for name, (f_NL, held_NL) in candidates.items()}


def report(cells: Sequence[Cell]) -> str:
    """Success by architecture and expansion, then the controls."""
    searched = [
        [
            arm_of(cell, cells),
            name,
            len(tried),
            *_shares(tried),
            f"{np.median([one['eq7_share'] for one in tried]):.2f}",
        ]
        for cell in cells
        for name, tried in cell.values["tried"].items()
    ]
    controls = [
        [
            arm_of(cell, cells),
            CONTROLS[name],
            f"{one['edge']:.3g}",
            "yes" if one["accepted"] else "no",
            one["reason"] or "—",
        ]
        for cell in cells
        for name, one in cell.values["controls"].items()
    ]
    first = ["architecture", "class", "inits", "Definition 1 holds", "accepted", "median Eq. 7 share"]
    second = ["given member", "control", "smallest edge", "accepted", "why not"]
    return "\n\n".join([_EXPLANATION, markdown(first, searched), _CONTROLS, markdown(second, controls)])


_EXPLANATION = f"""The second member on the digits: Eq. 6 as printed with gamma = {GAMMA:g}, {EPOCHS} epochs,
{INITS} random initialisations for each of three architectures. A candidate is accepted when Definition 1 holds for
every label, no residual is beyond 2B, and the running average does better on validation with it than without it."""
_CONTROLS = """Controls under the same weights. A constant vector with the sign that the weights want for each label
can meet Definition 1 without knowing anything of a sample (its smallest edge is then positive), so Definition 1 alone
is no criterion."""


def _shares(tried: Sequence[Values]) -> list[str]:
    return [f"{100 * sum(one[key] for one in tried) / len(tried):.0f} %" for key in ("definition1", "accepted")]


def _outcome(verdict: Verdict) -> Values:
    return {
        "accepted": verdict.accepted,
        "definition1": verdict.smallest_edge > 0,
        "edge": verdict.smallest_edge,
        "eq7_share": verdict.eq7_share,
        "reason": verdict.reason,
    }


def _first_member(game: Game) -> Ensemble:
    alone = dataclasses.replace(game, config=dataclasses.replace(game.config, rounds=1))
    return arms.decompose(alone).ensemble


def _with_channel(game: Game) -> Game:
    """The same scans as (1, 8, 8), which residual networks ask for."""
    train, validation, test = (Split(split.x[:, None], split.y) for split in game.data.splits().values())
    data = Data(train=train, validation=validation, test=test, classes=game.data.classes)
    return dataclasses.replace(game, data=data, normalise=Normalise.of(data.train.x))


EXPERIMENT = Experiment(
    name="find-wl",
    summary=f"how often the search for a weak learner succeeds: {INITS} inits, 3 architectures, controls",
    arms=tuple(run(architecture) for architecture in ARCHITECTURES),
    seeds=1,
    report=report,
)
