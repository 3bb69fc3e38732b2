"""What the ensemble is held against at the same cost: section 5.3's two baselines, and what a user might pick instead.

Every baseline is distilled from the same teacher with the same loss, optimiser and number of epochs
(:func:`training.baselines.single.schedule`), without barrier. It returns, for each of its answers, the networks that
are run for it; the answer is the mean of their logits, its cost the sum of theirs (:mod:`training.baselines.answer`).
"""

from training.baselines.answer import Answer, Point, measure
from training.baselines.batch_ensemble import batch_ensemble
from training.baselines.multi_exit import multi_exit
from training.baselines.no_resched import no_resched
from training.baselines.resched import resched
from training.baselines.snapshot import snapshot

__all__ = [
    "Answer",
    "Point",
    "batch_ensemble",
    "measure",
    "multi_exit",
    "no_resched",
    "resched",
    "snapshot",
]
