"""Algorithm 2, FIND-WL: search one model class, expansion by expansion, for a weak learner."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from training import boosting, early
from training.config import Config
from training.ensemble import Ensemble, run_members
from training.fitting import Fitting, Schedule
from training.game import Game, Trial
from training.networks import StagedNetwork
from training.verdict import Verdict, judge
from training.views import Views


@dataclass(frozen=True, slots=True)
class Candidate:
    """A trained, frozen network and what was found about it."""

    trial: Trial
    network: StagedNetwork
    verdict: Verdict


@dataclass(slots=True)
class Search:
    """How far a round has come: what a resumed run must know besides the epoch it was in."""

    attempts: int = 0
    """Candidates that were trained and judged in this round, over all classes."""
    best: Candidate | None = None
    """The one with the lowest validation loss, among those within the bound."""
    last_reason: str = ""
    """Why the latest was not accepted."""


def find_weak_learner(
    game: Game, ensemble: Ensemble, model_class: int, search: Search, skip: int = 0
) -> Candidate | None:
    """Algorithm 2 on one class: the first candidate that is a weak learner, or None.

    Args:
        game: what does not change between rounds.
        ensemble: the members so far, and with them the weights K+ and K-.
        model_class: position of the class in the game's list.
        search: the round's progress; updated.
        skip: trials of this class that were judged before the run was interrupted.
    """
    for trial in game.trials(model_class, len(ensemble))[skip:]:
        network = train_candidate(game, ensemble, trial, search)
        candidate = Candidate(trial, network, judge(game, ensemble, network, trial.sources))
        search.attempts += 1
        if candidate.verdict.accepted:
            return candidate
        search.last_reason = candidate.verdict.reason
        game.reporter.say(f"  {game.describe(trial)}: no weak learner, {search.last_reason}")
        if candidate.verdict.validation_loss < (search.best.verdict.validation_loss if search.best else math.inf):
            search.best = candidate
    return None


def train_candidate(game: Game, ensemble: Ensemble, trial: Trial, search: Search) -> StagedNetwork:
    """SGD on Eq. 6 (line 6), with a checkpoint after every epoch; the network comes back frozen."""
    network = game.build(trial, len(ensemble))

    views = Views(ensemble.train.x, game.config.augment)

    def loss(batch: Tensor) -> Tensor:
        seen = see(game, ensemble, views, trial.sources, batch)
        with game.autocast():
            logits_NL, taps = network(seen.x, seen.earlier)
        judged = early.judged(game.config.judged_steps, network, logits_NL, taps)
        return eq6_loss(game, ensemble, logits_NL.float(), batch, judged.float(), seen)

    seed = game.seed("order", len(ensemble), trial)
    fitting = Fitting(network, loss, len(views.x), schedule_of(game.config), seed, views=views)
    saved = game.checkpoint.load("trial")
    if saved and (saved["round"], saved["attempts"]) == (len(ensemble), search.attempts):
        fitting.restore(saved["fitting"])
    phase = f"member {len(ensemble) + 1} of {game.config.rounds}: {game.describe(trial)}"
    fitting.run(game.reporter, phase, lambda: _save(game, ensemble, search, fitting))
    return game.task.finish(network)


@dataclass(frozen=True, slots=True)
class Seen:
    """A batch as a candidate sees it, and what the teacher and the members so far say about that very view."""

    x: Tensor
    earlier: list[list[Tensor]]
    """For each stage the taps that the candidate reads."""
    teacher_NL: Tensor
    S_NL: Tensor
    """Cumulative residual of the members so far, fp64."""


def see(game: Game, ensemble: Ensemble, views: Views, sources: tuple[int, ...], batch: Tensor) -> Seen:
    """Look at a batch: what is stored of it or, of a new view, what teacher and members say now.

    A residual is only ever the difference of two answers to one view: a candidate that equals the teacher has
    none, however its samples are augmented.
    """
    x, teacher_NL = game.look(views, batch)
    if views.augmentation == "none":
        return Seen(x, ensemble.train.read(sources, batch), teacher_NL, ensemble.S_train_NL[batch])
    with game.autocast():
        run = run_members(ensemble.members, x)
    S_NL = torch.zeros_like(teacher_NL, dtype=torch.float64)
    for logits_NL in run.logits:
        S_NL += game.task.gauge(logits_NL.double()) - teacher_NL
    return Seen(x, run.read(sources), teacher_NL, S_NL)


def eq6_loss(
    game: Game,
    ensemble: Ensemble,
    logits_NL: Tensor,
    batch: Tensor,
    judged: Tensor | None = None,
    seen: Seen | None = None,
) -> Tensor:
    """Eq. 6 on a batch of sample indices, with means in place of sums.

    The first term is the distillation loss, or the squared difference of a regression. With
    ``task_loss = running_average`` it judges the prefix that the candidate would complete, so
    that it corrects the residual instead of repeating it; the paper judges the candidate alone. The k-th member
    moves the average by only 1/k, so that term is multiplied by k^2, as T^2 is for the temperature: its
    gradient on the member keeps its size, and gamma its meaning, from round to round.

    The second term looks at the end of a sequence. So does the first, unless `judged` holds the candidate's logits
    after every step (N, T, L): then each is held against what the teacher says at the end.

    Residuals are those of the view that was `seen`, by default the samples as they are. Which sign the barrier
    wants is a matter of the weights K, which are of the samples as they are in any case.
    """
    teacher_NL = ensemble.teacher_train_NL[batch] if seen is None else seen.teacher_NL
    l_NL = game.task.gauge(logits_NL) - teacher_NL
    task = _task_loss(game, ensemble, logits_NL if judged is None else judged, batch, seen)
    return task + barrier_loss(game, ensemble, l_NL, batch) / game.config.gamma


def barrier_loss(game: Game, ensemble: Ensemble, l_NL: Tensor, batch: Tensor) -> Tensor:
    """The barrier of Eq. 6 on a batch, in the variant that the settings name.

    `literal` is the paper's. `weighted` multiplies each pair by ``N |K+ - K-|``, so that the barrier pushes where
    Definition 1 looks. `saturating` stops at ``|l| = |S|``, where the member has undone the residual before it.
    """
    S_NL = ensemble.S_train_NL[batch]
    sign_NL = boosting.wanted_sign(S_NL).float()
    match game.config.barrier:
        case "literal":
            return boosting.barrier(l_NL, sign_NL, game.B)
        case "weighted":
            weights_NL = boosting.imbalance(S_NL, game.eta, ensemble.log_Z(game.eta), len(game.data.train))
            return boosting.barrier(l_NL, sign_NL, game.B, weights_NL=weights_NL.float())
        case "saturating":
            return boosting.barrier(l_NL, sign_NL, game.B, cap_NL=S_NL.abs().float())


def _task_loss(game: Game, ensemble: Ensemble, logits: Tensor, batch: Tensor, seen: Seen | None) -> Tensor:
    """First term of Eq. 6 for logits (N, L), or (N, T, L) of which every step counts as a sample."""
    teacher_NL = ensemble.teacher_train_NL[batch] if seen is None else seen.teacher_NL
    outputs_NL, teacher_NL, y_N = early.by_step(logits, teacher_NL, game.target.train_y_N[batch])
    residual_NL, k = game.task.gauge(outputs_NL) - teacher_NL, 1
    if game.config.task_loss == "running_average":
        k = len(ensemble) + 1
        if logits.ndim > 2:
            S_NL = ensemble.S_of_steps(batch).flatten(0, 1)
        else:
            S_NL = (ensemble.S_train_NL[batch] if seen is None else seen.S_NL).float()
        residual_NL = (S_NL + residual_NL) / k
    return k**2 * game.task.loss(teacher_NL + residual_NL, teacher_NL, y_N)


def schedule_of(config: Config) -> Schedule:
    """How a member is fitted."""
    return Schedule(
        epochs=config.epochs,
        batch_size=config.batch_size,
        learning_rate=config.learning_rate,
        weight_decay=config.weight_decay,
    )


def candidate_state(candidate: Candidate) -> dict[str, Any]:
    """A candidate as plain values and tensors."""
    return {
        "trial": dataclasses.asdict(candidate.trial),
        "verdict": dataclasses.asdict(candidate.verdict),
        "network": candidate.network.state_dict(),
    }


def restore_candidate(game: Game, index: int, state: dict[str, Any]) -> Candidate:
    """The inverse of :func:`candidate_state` for a candidate of round `index`."""
    trial = Trial(**{**state["trial"], "sources": tuple(state["trial"]["sources"])})
    network = game.build(trial, index)
    network.load_state_dict(state["network"])
    return Candidate(trial, network.freeze(), Verdict(**state["verdict"]))


def _save(game: Game, ensemble: Ensemble, search: Search, fitting: Fitting) -> None:
    game.checkpoint.save(
        "trial",
        {
            "round": len(ensemble),
            "attempts": search.attempts,
            "best": candidate_state(search.best) if search.best else None,
            "last_reason": search.last_reason,
            "fitting": fitting.state(),
        },
    )
