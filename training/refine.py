"""Refinement: after the rounds all members are trained together, so that every prefix is a good answer.

The rounds are greedy: a member is fixed before the next one is thought of, and nobody chose its features for the
members that read them. Here the gradient goes through the connections into earlier members, and the loss is the
weighted mean over all prefixes of the distillation loss of their running average:

    sum_k w_k D(F_k, g),   F_k = (1/k) sum_{s <= k} f_s,   w_k ~ k^emphasis.

This is not in the paper (`refine_epochs = 0` is). The graphs keep their wiring, so serving does not change.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from bundle import Refinement
from training import boosting, early, ensemble, ranks
from training.bdistil import Outcome
from training.config import Config, Steps
from training.determinism import derive_seed
from training.ensemble import Ensemble, TrainedMember
from training.fitting import Fitting, Schedule
from training.game import Game
from training.networks import StagedNetwork
from training.views import Views


class Chain(nn.Module):
    """Copies of all members as one network: each runs once, in order, and connections carry gradients."""

    def __init__(self, members: Sequence[TrainedMember], judged_steps: Steps = "last") -> None:
        super().__init__()
        self._judged_steps = judged_steps
        self._networks = nn.ModuleList(copy.deepcopy(member.network).requires_grad_() for member in members)
        self._sources = [member.sources for member in members]

    @property
    def networks(self) -> list[StagedNetwork]:
        """The members' networks, in order."""
        return [network for network in self._networks if isinstance(network, StagedNetwork)]

    def forward(self, x: Tensor) -> list[Tensor]:
        """Raw samples (N, *shape) to what is judged of every prefix: its running average (N, L), or (N, T, L)."""
        taps: list[list[Tensor]] = []
        averages: list[Tensor] = []
        total: Tensor | None = None
        for network, sources in zip(self.networks, self._sources, strict=True):
            earlier = [list(stage) for stage in zip(*(taps[source] for source in sources), strict=True)]
            logits_NL, own = network(x, earlier)
            taps.append(own)
            # The sum of what was computed in bfloat16 is not.
            logits = early.judged(self._judged_steps, network, logits_NL, own).float()
            total = logits if total is None else total + logits
            averages.append(total / len(taps))
        return averages


@dataclass(slots=True)
class Best:
    """The state with the lowest validation loss so far; epoch 0 is the ensemble as the rounds left it."""

    epoch: int
    loss: float
    chain: dict[str, Any]


def refine(game: Game, outcome: Outcome) -> Outcome:
    """Train the members of `outcome` together for ``refine_epochs``, going on from the game's checkpoint.

    The validation loss chooses among the ensemble as it came and the one after each epoch, so that refinement never
    makes it worse there. The members come back frozen, with features and residuals that belong to them.
    """
    if not game.config.refine_epochs:
        return outcome
    members = outcome.ensemble.members
    chain = Chain(members, game.config.judged_steps)
    views = Views(outcome.ensemble.train.x, game.config.augment)

    def loss(batch: Tensor) -> Tensor:
        x, teacher_NL = game.look(views, batch)
        with game.autocast():
            averages = chain(x)
        return prefix_loss(game, averages, teacher_NL, game.target.train_y_N[batch])

    seed = derive_seed(game.config.seed, "refine", "order")
    fitting = Fitting(chain, loss, len(views.x), schedule_of(game.config), seed, views=views)
    before = validation_loss(game, outcome.ensemble, chain)
    best = Best(0, before, copy.deepcopy(chain.state_dict()))
    saved = game.checkpoint.load("refinement")
    if saved:
        fitting.restore(saved["fitting"])
        best = Best(**saved["best"])

    def after_epoch() -> None:
        found = validation_loss(game, outcome.ensemble, chain)
        if found < best.loss:  # never true of NaN
            best.epoch, best.loss, best.chain = fitting.epochs_done, found, copy.deepcopy(chain.state_dict())
        game.checkpoint.save("refinement", {"fitting": fitting.state(), "best": dataclasses.asdict(best)})

    fitting.run(game.reporter, "refinement of all members", after_epoch)
    game.reporter.say(
        f"refined for {fitting.epochs_done} epochs, kept epoch {best.epoch}: "
        f"validation loss over all prefixes {before:.4g} before, {best.loss:.4g} after"
    )
    return _rebuilt(game, outcome, chain, best, before)


def prefix_loss(game: Game, averages: Sequence[Tensor], teacher_NL: Tensor, y_N: Tensor) -> Tensor:
    """The weighted mean over prefixes of the task loss of their running averages; a scalar."""
    weights = prefix_weights(len(averages), game.config.refine_emphasis)
    losses = [game.task.loss(*early.by_step(average, teacher_NL, y_N)) for average in averages]
    return torch.stack([weight * value for weight, value in zip(weights, losses, strict=True)]).sum()


def prefix_weights(count: int, emphasis: float) -> list[float]:
    """Weights of prefixes 1 to `count`, proportional to ``k ** emphasis``, of sum 1."""
    powers = [k**emphasis for k in range(1, count + 1)]
    return [power / sum(powers) for power in powers]


def validation_loss(game: Game, found: Ensemble, chain: Chain) -> float:
    """:func:`prefix_loss` of `chain` on the validation part, in eval mode; leaves its mode and statistics alone."""
    x, training = found.validation.x, chain.training
    chain.eval()
    with torch.no_grad():
        parts = [chain(x[start : start + ensemble.BATCH]) for start in range(0, len(x), ensemble.BATCH)]
    chain.train(training)
    averages = [torch.cat(prefix) for prefix in zip(*parts, strict=True)]
    own = prefix_loss(game, averages, found.teacher_validation_NL, game.target.validation_y_N)
    return float(ranks.mean(own, len(x)))


def schedule_of(config: Config) -> Schedule:
    """How the members are fitted together."""
    return Schedule(
        epochs=config.refine_epochs,
        batch_size=config.batch_size,
        learning_rate=config.refine_learning_rate,
        weight_decay=config.weight_decay,
    )


def _rebuilt(game: Game, outcome: Outcome, chain: Chain, best: Best, before: float) -> Outcome:
    """The ensemble of the kept state, and what of Definition 1 and Eq. 7 its members, in order, still meet."""
    chain.load_state_dict(best.chain)
    rebuilt, edges, shares = game.empty_ensemble(), list[float](), list[float]()
    for member, network in zip(outcome.ensemble.members, chain.networks, strict=True):
        S_NL = rebuilt.S_train_NL.clone()
        # Unrefined members are centred already; once more would move their last bits.
        kept = dataclasses.replace(member, network=game.task.finish(network)) if best.epoch else member
        rebuilt.add(kept)
        l_NL = rebuilt.S_train_NL - S_NL
        edges.append(float(boosting.edges(S_NL, l_NL, game.eta).min()))
        shares.append(boosting.eq7_share(S_NL, l_NL))
    record = Refinement(
        epochs=game.config.refine_epochs,
        kept=best.epoch,
        validation_loss_before=before,
        validation_loss=best.loss,
        smallest_edges=tuple(edges),
        eq7_shares=tuple(shares),
    )
    return dataclasses.replace(outcome, ensemble=rebuilt, refinement=record)
