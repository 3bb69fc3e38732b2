"""How good each prefix is, how far its confidence can be believed, and when a sample may leave early."""

from __future__ import annotations

from typing import Annotated, Final, Literal, Self

from pydantic import Field, model_validator

from bundle.record import NonNegative, Positive, Record, Share, Task


class Scores(Record):
    """How far a prefix's probabilities can be believed, measured on the held-out split."""

    nll: NonNegative
    """Mean negative log-likelihood of the label, in nats."""
    ece: Share
    """Expected calibration error, 15 equal-width bins of confidence."""
    brier: NonNegative
    """Mean squared distance of the probabilities from the label's one-hot vector, 0 to 2."""


class Outlook(Record):
    """What further members are worth to a sample, given its confidence now; one band of confidence of one prefix."""

    up_to: Share
    """Upper edge of the band, inclusive; the lower one is the band before's. Confidence is the calibrated one."""
    share: Share
    """Share of the calibration samples that fall into the band."""
    accuracy: Annotated[tuple[Share, ...], Field(min_length=1)]
    """Of these samples: after this prefix, after the next one, ... after all members. Estimates never fall with
    more members, so that a scheduler may take differences as gains."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if list(self.accuracy) != sorted(self.accuracy):
            raise ValueError("the accuracies of a band of an outlook must not fall with more members")
        return self


MEASURES: Final[dict[Task, tuple[str, ...]]] = {
    "classification": ("accuracy", "agreement", "nll", "ece"),
    "regression": ("rmse", "r2", "teacher_rmse"),
}
"""What a prefix of an ensemble for each task must tell; it has none of the other's."""


class Prefix(Record):
    """Quality of the first `members` members, measured through onnxruntime on the held-out split.

    Which measures there are depends on the manifest's task: see `MEASURES`.
    """

    members: Annotated[int, Field(ge=1)]
    accuracy: Share | None = None
    agreement: Share | None = None
    """Share of samples on which the prefix and the teacher name the same class."""
    nll: NonNegative | None = None
    """Mean negative log-likelihood of the label, in nats."""
    ece: Share | None = None
    """Expected calibration error, 15 equal-width bins of confidence."""
    rmse: NonNegative | None = None
    """Regression: root mean squared error, over samples and outputs, in the unit of the labels."""
    r2: Annotated[float, Field(le=1)] | None = None
    """Regression: coefficient of determination, the share of the labels' variance that is explained; mean over
    outputs. Negative: worse than always answering the mean."""
    teacher_rmse: NonNegative | None = None
    """Regression: root mean squared difference to the teacher's answers."""
    flops_fraction: NonNegative
    """FLOPs of all members up to here over those of the teacher; of the whole ensemble if the teacher's are unknown."""
    brier: NonNegative | None = None
    """Mean squared distance of the probabilities from the label's one-hot vector, 0 to 2."""
    temperature: Positive = 1
    """softmax(logits / temperature) is this prefix's calibrated probability; fitted on the calibration split."""
    calibrated: Scores | None = None
    """On the held-out split with that temperature; `nll`, `ece` and `brier` above are without it."""
    outlook: tuple[Outlook, ...] = ()
    """By confidence, ascending, measured on the calibration split; the last band ends at 1. Empty: not measured."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        edges = [band.up_to for band in self.outlook]
        if edges and (edges[-1] != 1 or edges != sorted(set(edges))):
            raise ValueError(f"prefix {self.members}: the bands of its outlook must ascend and end at 1")
        return self

    @property
    def quality(self) -> float:
        """One number that is higher the better the prefix is: its accuracy, or of a regression its R²."""
        return quality_of(self.accuracy, self.r2)

    def check_task(self, task: Task) -> None:
        """Raise ValueError when a measure of the task is missing, or one of another task is there."""
        missing = [name for name in MEASURES[task] if getattr(self, name) is None]
        if missing:
            raise ValueError(f"prefix {self.members}: a {task} needs {', '.join(missing)}")
        foreign = {name for other, names in MEASURES.items() if other != task for name in names}
        if task == "regression":
            foreign |= {"brier", "calibrated"} | ({"outlook"} if self.outlook else set())
        known = sorted(name for name in foreign if getattr(self, name) is not None)
        if known:
            raise ValueError(f"prefix {self.members}: a {task} has no {', '.join(known)}")


def quality_of(accuracy: float | None, r2: float | None) -> float:
    """Whichever was measured; ValueError if neither was."""
    measured = accuracy if accuracy is not None else r2
    if measured is None:
        raise ValueError("neither accuracy nor r2 was measured")
    return measured


class ExitRule(Record):
    """When a sample may leave before the last member, with a guarantee.

    After prefix k a sample whose calibrated confidence is at least `thresholds[k - 1]` takes that prefix's answer.
    """

    risk: Annotated[float, Field(gt=0, lt=1)]
    """Epsilon: bound on the share of samples whose answer is not that of the whole ensemble."""
    confidence: Annotated[float, Field(gt=0, lt=1)]
    """1 - delta: probability, over the draw of the calibration samples, that the bound holds."""
    thresholds: tuple[Share | None, ...]
    """One for each prefix but the whole ensemble; None: nobody leaves here."""
    method: Literal["learn_then_test"]
    """How the thresholds were found."""
    flops_fraction: NonNegative
    """Mean cost of a sample under the rule on the held-out split, in the unit of the prefixes' `flops_fraction`."""
    accuracy: Share
    """Under the rule, on the held-out split."""
    disagreement: Share
    """Share of held-out samples whose answer under the rule is not that of the whole ensemble."""


class Evaluation(Record):
    """A split, and how many samples it has."""

    split: str
    samples: Annotated[int, Field(ge=1)]
