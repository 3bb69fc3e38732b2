"""Algorithm 1, B-DISTIL: the rounds.

Read literally, ``while r < R and t < T`` from 1 finds at most T - 1 members; here it is exactly T unless the search
fails. As in the paper the model class never goes back to a cheaper one: what was once exhausted stays behind.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bundle import Refinement, Round
from training import boosting, ranks
from training.ensemble import Ensemble, TrainedMember
from training.errors import NoWeakLearner
from training.find_wl import Candidate, Search, candidate_state, find_weak_learner, restore_candidate
from training.game import Game


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the rounds gave, and what refinement made of it."""

    ensemble: Ensemble
    stopped: str | None
    """Why there are fewer than T members, if there are."""
    refinement: Refinement | None = None
    """How the members were trained together afterwards, if they were."""


def run_rounds(game: Game) -> Outcome:
    """All rounds of Algorithm 1, going on from the game's checkpoint where it holds some.

    Raises:
        NoWeakLearner: not even the first round found a member.
    """
    ensemble, candidates = _restore(game)
    for index in range(len(ensemble), game.config.rounds):
        if index and float(ranks.largest(ensemble.S_train_NL.abs().max())) == 0:
            return Outcome(
                ensemble,
                f"after {index} of {game.config.rounds} rounds the answer equals the teacher's on the training set",
            )
        search = _restore_search(game, index)
        found = _search_classes(game, ensemble, search, ensemble.members[-1].model_class if index else 0)
        if found is None:
            return _give_up(game, ensemble, search)
        _accept(game, ensemble, found, search.attempts)
        candidates.append(found)
        _save(game, ensemble, candidates)
    return Outcome(ensemble, None)


def _search_classes(game: Game, ensemble: Ensemble, search: Search, first: int) -> Candidate | None:
    """Lines 4 to 8: FIND-WL in the current class, then in each costlier one; then the best, if it may be taken."""
    skip = search.attempts
    for model_class in range(first, len(game.classes)):
        trials = len(game.trials(model_class, len(ensemble)))
        found = find_weak_learner(game, ensemble, model_class, search, min(skip, trials))
        skip = max(0, skip - trials)
        if found is not None:
            return found
    return search.best if game.config.on_failure == "best" else None


def _give_up(game: Game, ensemble: Ensemble, search: Search) -> Outcome:
    reason = search.best.verdict.reason if search.best else search.last_reason
    which = "the best" if search.best else "the last"
    why = f"round {len(ensemble) + 1} found no weak learner in {search.attempts} candidates; {which} of them: {reason}"
    if not len(ensemble):
        raise NoWeakLearner(f"There is no ensemble: {why}.")
    game.reporter.say(f"Stopped with {len(ensemble)} members: {why}.")
    return Outcome(ensemble, why)


def _accept(game: Game, ensemble: Ensemble, found: Candidate, attempts: int) -> None:
    trial, verdict = found.trial, found.verdict
    record = Round(
        attempts=attempts,
        model_class=game.classes[trial.model_class].name,
        expansion=trial.expansion,
        smallest_edge=verdict.smallest_edge,
        eq7_share=verdict.eq7_share,
        weak_learner=verdict.accepted,
        effective_samples=boosting.effective_samples(ensemble.S_train_NL, game.eta),
    )
    taken = "" if verdict.accepted else f" (best candidate, no weak learner: {verdict.reason})"
    ensemble.add(TrainedMember(found.network, trial.sources, trial.model_class, record))
    game.reporter.say(
        f"member {len(ensemble)} of {game.config.rounds}: {game.describe(trial)}, "
        f"smallest edge {verdict.smallest_edge:.3g}, Eq. 7 share {verdict.eq7_share:.2f}{taken}"
    )


def _save(game: Game, ensemble: Ensemble, candidates: list[Candidate]) -> None:
    """S and the features are not saved: they follow, to the bit, from adding the members again."""
    state = {
        "candidates": [candidate_state(candidate) for candidate in candidates],
        "attempts": [member.round.attempts for member in ensemble.members],
    }
    game.checkpoint.save("rounds", state)


def _restore(game: Game) -> tuple[Ensemble, list[Candidate]]:
    ensemble, candidates = game.empty_ensemble(), list[Candidate]()
    saved: dict[str, Any] = game.checkpoint.load("rounds") or {"candidates": [], "attempts": []}
    for state, attempts in zip(saved["candidates"], saved["attempts"], strict=True):
        candidates.append(restore_candidate(game, len(ensemble), state))
        _accept(game, ensemble, candidates[-1], attempts)
    return ensemble, candidates


def _restore_search(game: Game, index: int) -> Search:
    saved = game.checkpoint.load("trial")
    if not saved or saved["round"] != index:
        return Search()
    best = restore_candidate(game, index, saved["best"]) if saved["best"] else None
    return Search(saved["attempts"], best, saved["last_reason"])
