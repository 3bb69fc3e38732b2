"""NO-RESCHED (section 5.3): an oracle knows the budget and has a single model distilled for exactly that budget.

The paper expects it above the ensemble.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from training import ranks
from training.baselines.answer import Answer, logits_of, score
from training.baselines.single import cost_of, distil_single, widest
from training.data import Split
from training.game import Game
from training.networks import LogitsOnly, ModelClass


def no_resched(game: Game, families: Sequence[ModelClass], budgets: Sequence[float]) -> list[Answer]:
    """For each budget in FLOPs the best network that it pays for.

    Of every family the widest affordable network is distilled; which family answers is chosen on the validation part,
    for each budget anew.
    """
    answers = list[Answer]()
    for k, budget in enumerate(budgets, start=1):
        affordable = dict.fromkeys(within(game, family, budget) for family in families)  # families can meet when scaled
        singles = [
            distil_single(game, model_class, f"NO-RESCHED {model_class.name}", k, len(budgets))
            for model_class in affordable
        ]
        answers.append((max(singles, key=lambda network: quality(game, network)),))
    return answers


def within(game: Game, model_class: ModelClass, budget: float) -> ModelClass:
    """`model_class` scaled to the largest widths that cost at most `budget`, or to its smallest."""
    return model_class.scaled(widest(lambda factor: cost_of(game, model_class.scaled(factor)), budget))


def quality(game: Game, network: LogitsOnly) -> tuple[float, float]:
    """What is chosen by: validation accuracy, and where that ties the distillation loss; errors count negated."""
    mine = Split(ranks.share(game.data.validation.x), ranks.share(game.data.validation.y))
    logits_NL = logits_of(game, network, mine)
    target = game.target
    own = game.task.loss(logits_NL, target.validation_NL.cpu(), target.validation_y_N.cpu())
    found = ranks.mean(torch.tensor(score(game, logits_NL, mine), dtype=torch.float64), len(mine))
    return (-1 if game.data.task == "regression" else 1) * float(found), -float(ranks.mean(own, len(mine)))
