"""Settings of a run: frozen, checked when made, every key settable as ``--set key=value``."""

from __future__ import annotations

import dataclasses
import math
import typing
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

from bundle.manifest import valid_name
from training.errors import BadConfig
from training.views import Augmentation

Steps = Literal["last", "every"]

MINIMUM = {
    "seed": 0,
    "threads": 1,
    "rounds": 1,
    "expansions": 1,
    "first_expansion": 0,
    "max_search": 1,
    "bound_factor": 1,
    "epochs": 1,
    "batch_size": 2,
    "weight_decay": 0,
    "chunk_steps": 0,
    "frame_steps": 1,
    "teacher_epochs": 1,
    "teacher_blocks": 1,
    "member_blocks": 1,
    "refine_epochs": 0,
    "label_weight": 0,
    "refine_emphasis": -10,
}
"""Smallest value of a key; what is not here and is a float must be positive."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """What B-DISTIL needs to know besides teacher, data and model classes."""

    name: str
    """Name of the bundle, and of its folder."""
    seed: int = 0
    """Decides everything random: splits, initial weights, order of samples."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where training runs; `auto` takes CUDA when there is a device."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of the products in training steps; `auto`: bfloat16 on CUDA. What decides about a member is never rounded so."""
    threads: int = 2
    """CPU threads of torch; another number gives sums in another order, so another last bit."""
    rounds: int = 7
    """T: the most members that are looked for."""
    expansions: int = 2
    """R: how many expansions F_0 ... F_(R-1) of a model class are searched; F_0 sees no earlier member."""
    first_expansion: int = 0
    """Expansion at which the search begins: 0 as in Algorithm 2; 1 to connect members without first failing."""
    max_search: int = 2
    """Random restarts for each expansion of each class."""
    connection: Literal["none", "residual", "dense", "lstm", "gru"] = "residual"
    """How an expanded member sees earlier ones: the stages of the last r added, or passed through the gates of an LSTM
    or GRU whose state runs over the members; `dense`: those of all, projected."""
    eta: float = 1.0
    """Step of the weight update, Eqs. 4 and 5; its unit is set by `eta_rule`."""
    eta_rule: Literal["literal", "scaled", "theorem"] = "literal"
    """`literal`: eta acts on logits; `scaled`: on logits over B; `theorem`: eta times Theorem 1's own,
    sqrt(ln 2N / T) / G with G = 2B."""
    gamma: float = 100.0
    """Eq. 6: the barrier has weight 1/gamma; dimensionless, a large value leaves hardly any barrier."""
    bound_factor: float = 1.5
    """B of Eq. 6 over the largest absolute centred logit of the teacher."""
    temperature: float = 4.0
    """Softens both sides of the distillation loss."""
    task_loss: Literal["member", "running_average"] = "member"
    """What the distillation loss judges: the new member alone (Eq. 6), or the prefix that it completes."""
    judged_steps: Steps = "last"
    """After which steps of a sequence the task loss judges the answer: `every` is the early-classification loss of
    EMI-RNN, for recurrent members."""
    barrier: Literal["literal", "weighted", "saturating"] = "literal"
    """`literal`: Eq. 6; `weighted`: each sample and label counts with |K+ - K-|, as in Definition 1; `saturating`: no
    reward for more than undoing the residual so far."""
    label_weight: float = 0.0
    """alpha: how much cross-entropy on the labels is added to every distillation loss; 0 as in the paper."""
    with_teacher: bool = False
    """Append the teacher as a last stage that replaces the answer, for requests with time for it."""
    on_failure: Literal["stop", "best"] = "stop"
    """When no candidate is a weak learner: end with the ensemble so far, or take the best one and record it."""
    augment: Augmentation = "none"
    """For images: shifted by up to four pixels and mirrored (`crop_flip`), and with a square cut out of them besides,
    anew in every epoch; the teacher then answers the same view, so it must be a network."""
    epochs: int = 20
    """Passes over the training set for each candidate."""
    batch_size: int = 64
    """Samples in one step."""
    learning_rate: float = 1e-2
    """Peak rate of AdamW, after a short warm-up and before a cosine decay."""
    weight_decay: float = 1e-4
    """AdamW's."""
    chunk_steps: int = 0
    """Steps of a sequence that a stream brings at once: a second graph of every recurrent member takes so many; 0: no
    such graphs."""
    refine_epochs: int = 0
    """Passes over the training set in which all members are trained together after the rounds; 0, as in the paper:
    none."""
    refine_learning_rate: float = 1e-2
    """Peak rate of AdamW in those passes; batch size and weight decay are those of a member."""
    refine_emphasis: float = 0.0
    """Prefix k has a weight proportional to k ** refine_emphasis in them: 0 treats all alike, less favours the early
    answers."""
    exit_risks: tuple[float, ...] = (0.01, 0.02, 0.05)
    """Epsilons, ascending, for each of which an early-exit rule is looked for: bounds on the share of samples whose
    answer is not that of the whole ensemble."""
    exit_confidence: float = 0.95
    """1 - delta: the probability with which each of these bounds holds."""

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not valid_name(self.name):
            raise BadConfig(
                f"name={self.name!r} cannot be a bundle's name: letters, digits, '.', '_', '-', at most 64."
            )
        for key, kind in typing.get_type_hints(type(self)).items():
            if typing.get_origin(kind) is tuple and isinstance(getattr(self, key), list):
                object.__setattr__(self, key, tuple(getattr(self, key)))
            _check_type(key, getattr(self, key), kind)
            _check_range(key, getattr(self, key), kind)
        if self.first_expansion >= self.expansions:
            raise BadConfig(
                f"first_expansion={self.first_expansion} must be below expansions={self.expansions}: "
                "the search would have no class."
            )

    def override(self, assignments: Sequence[str]) -> Self:
        """A copy with ``key=value`` strings applied, each parsed as the key's type.

        Raises:
            BadConfig: unknown key, or a value that is not of the key's type or range.
        """
        hints = typing.get_type_hints(type(self))
        changes: dict[str, object] = {}
        for assignment in assignments:
            key, equals, text = assignment.partition("=")
            if not equals:
                raise BadConfig(f"--set {assignment!r} is not of the form key=value.")
            if key not in hints:
                raise BadConfig(f"There is no setting {key!r}; there are: {', '.join(hints)}.")
            changes[key] = _parse(key, text, hints[key])
        return dataclasses.replace(self, **changes)  # type: ignore[arg-type]

    def record(self) -> dict[str, object]:
        """The settings as JSON values; of a path only its last part, because a manifest travels."""
        return {key: _plain(value) for key, value in dataclasses.asdict(self).items()}


@dataclass(frozen=True, kw_only=True)
class RecipeConfig(Config):
    """A recipe's settings: also which teacher is trained, and from which classes members come."""

    teacher_widths: tuple[int, ...]
    """Channels (or hidden units) of the teacher's stages."""
    teacher_blocks: int = 2
    """Blocks in each of the teacher's stages."""
    teacher_epochs: int = 20
    """Passes over the training set for the teacher."""
    member_widths: tuple[int, ...]
    """Channels (or hidden units) of a member's stages, in the cheapest model class."""
    member_blocks: int = 1
    """Blocks in each stage of a member."""

    @property
    def reads_files(self) -> bool:
        """Whether data or teacher come from files whose content the settings do not fix."""
        return False


def _check_type(key: str, value: object, kind: type) -> None:
    """What a type checker would say, for those who have none: a word that is no choice would mean the default."""
    if typing.get_origin(kind) is Literal:
        if value not in typing.get_args(kind):
            raise BadConfig(f"{key}={value!r} is none of: {', '.join(typing.get_args(kind))}.")
    elif not _is_a(kind, value):
        raise BadConfig(f"{key}={value!r} is not {_words(kind)}.")


def _is_a(kind: type, value: object) -> bool:
    if typing.get_origin(kind) is tuple:
        return isinstance(value, tuple) and all(_is_a(typing.get_args(kind)[0], part) for part in value)
    if kind in {int, float}:
        return isinstance(value, int if kind is int else int | float) and not isinstance(value, bool)
    return isinstance(value, kind)


def _words(kind: type) -> str:
    if typing.get_origin(kind) is tuple:
        return f"{'integers' if typing.get_args(kind)[0] is int else 'numbers'} separated by commas"
    return f"of type {kind.__name__}"


def _check_range(key: str, value: object, kind: type) -> None:
    if isinstance(value, int | float) and key in MINIMUM and not value >= MINIMUM[key]:
        raise BadConfig(f"{key}={value} must be at least {MINIMUM[key]}.")
    if kind is float and isinstance(value, int | float):
        if key not in MINIMUM and not 0 < value < math.inf:
            raise BadConfig(f"{key}={value} must be positive and finite.")
        if not math.isfinite(value):
            raise BadConfig(f"{key}={value} must be finite.")
    if key == "exit_confidence" and isinstance(value, float) and not value < 1:
        raise BadConfig(f"{key}={value} must be below 1.")
    if key == "exit_risks" and isinstance(value, tuple):
        if not value or list(value) != sorted(set(value)) or not 0 < value[0] <= value[-1] < 1:
            raise BadConfig(f"{key}={value} must be one or more ascending numbers between 0 and 1.")
    elif isinstance(value, tuple) and (not value or min(value) < 1):
        raise BadConfig(f"{key}={value} must be one or more positive integers.")


def _parse(key: str, text: str, kind: type) -> object:
    if kind is str or typing.get_origin(kind) is Literal:
        return text
    if kind is bool:
        if text not in ("true", "false"):
            raise BadConfig(f"{key}={text!r} is neither true nor false.")
        return text == "true"
    try:
        if typing.get_origin(kind) is tuple:
            part_kind = typing.get_args(kind)[0]
            return tuple(part_kind(part) for part in text.split(","))
        return kind(text)
    except ValueError:
        raise BadConfig(f"{key}={text!r} is not {_words(kind)}.") from None


def _plain(value: object) -> object:
    if isinstance(value, Path):
        return value.name
    return list(value) if isinstance(value, tuple) else value
