"""Requests and responses as they are on the wire. Durations are milliseconds here, seconds inside."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, WithJsonSchema

from service.schema import Answered, Asked, Output, example

Value = Annotated[float, Field(ge=-3.4e38, le=3.4e38)]
"""What a float32 can hold."""
Outputs = Annotated[list[Output], Field(strict=False, json_schema_extra={"default": []})]
"""Its default comes from a factory: pydantic copies a list that is one, deeply and in Python, for every request."""
Rows = Annotated[
    Any,
    WithJsonSchema({"type": "array", "items": {}, "minItems": 1}),
    Field(description="Raw samples: nested arrays of numbers, batch axis first, in the shape that GET /models gives."),
]


class Knobs(Asked):
    """What a request says beside its samples: in the JSON body, or in the query beside an .npy body."""

    deadline_ms: Annotated[float | None, Field(json_schema_extra={"exclusiveMinimum": 0})] = None
    """Milliseconds from the arrival of the request's head to its answer. Absent: all members are run."""
    model: str | None = None
    """Name of the bundle; may be left out while only one is served."""
    version: Annotated[int, Field(ge=1)] | None = None
    """Version of the bundle; absent: the highest that is served."""
    max_members: Annotated[int, Field(ge=1)] | None = None
    """Run no more members than this."""
    min_members: Annotated[int, Field(ge=1)] | None = None
    """An answer of fewer members is of no use: they are run as urgently as a first member is, and if they cannot be
    done by the deadline there is no answer (504)."""
    target_accuracy: Annotated[float, Field(gt=0, le=1)] | None = None
    """Stop at the first prefix with this accuracy on the bundle's held-out split; all members if there is none."""
    exit_confidence: Annotated[float, Field(gt=0, le=1)] | None = None
    """A sample whose calibrated confidence reaches this takes the prefix's answer and costs no further work."""
    exit_risk: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Samples leave early as the bundle's rule with the largest risk up to this one says: the share of samples whose
    answer is not that of the whole ensemble is bounded by it. Not together with `exit_confidence`."""
    priority: Annotated[int, Field(ge=0, le=9)] = 0
    """Under load, higher ones are answered first, and each level counts twice as much when refinements compete."""
    outputs: Outputs = Field(default_factory=list)
    """What each prediction of a classifier holds beside class, index and confidence."""
    keep_ms: Annotated[float | None, Field(json_schema_extra={"exclusiveMinimum": 0})] = None
    """Keep the state for this long, so that POST /predict/{request_id}/continue can go on from this answer."""


class ContinueRequest(Asked):
    """How much longer an answered request may take."""

    model_config = example({"deadline_ms": 50.0, "keep_ms": 1000.0})

    deadline_ms: Annotated[float | None, Field(json_schema_extra={"exclusiveMinimum": 0})] = None
    """Milliseconds from the arrival of this request's head to its answer. Absent: all members are run."""
    max_members: Annotated[int, Field(ge=1)] | None = None
    """Run no more members than this, those of the earlier answers included."""
    outputs: Outputs = Field(default_factory=list)
    """What each prediction of a classifier holds beside class, index and confidence."""
    keep_ms: Annotated[float | None, Field(json_schema_extra={"exclusiveMinimum": 0})] = None
    """Keep the state on for this long. Absent: this is the last time it is continued."""


class PredictRequest(Knobs):
    """A batch of samples and how long the answer may take."""

    model_config = example({"inputs": [[5.1, 3.5, 1.4, 0.2]], "deadline_ms": 20.0, "outputs": ["probabilities"]})

    inputs: Rows


class Prediction(Answered):
    """The answer for one sample."""

    class_: Annotated[str, Field(alias="class")]
    """Name of the winning class."""
    index: int
    """Its position in the bundle's classes."""
    confidence: float
    """Its calibrated probability: softmax of the running average over the temperature of its prefix."""
    probabilities: list[float] | None = None
    """Of all classes, calibrated, if asked for."""
    logits: list[float] | None = None
    """The running average itself, if asked for."""
    members_used: int | None = None
    """Members in this sample's answer; given when samples of the request left early."""


class AnswerHead(Answered):
    """What is told of an answer beside its numbers."""

    model: str
    version: int
    request_id: str
    """Also in the header X-Request-ID; names this answer in POST /feedback."""
    members_used: int
    """The answer is that of the bundle's prefix of so many members; the longest, where samples left early. A last
    member that replaces the answer and reads nothing of the others may have been run without those between."""
    members_total: int
    stopped_by: Literal[
        "complete",
        "deadline",
        "max_members",
        "target_accuracy",
        "exit_confidence",
        "exit_risk",
        "member_failed",
        "shutdown",
    ]
    """Why no further member was run."""
    deadline_ms: float | None
    elapsed_ms: float
    """From the arrival of the request's head to the encoding of this answer."""
    expected_accuracy: float | None = None
    """Accuracy of this prefix on the bundle's held-out split, mean over samples where some left early; null for a
    regression."""
    expected_rmse: float | None = None
    """Of a regression: root mean squared error of this prefix there, in the unit of the labels."""
    kept_ms: float | None = None
    """For how long the request can be continued; null if it was not asked for, could not be, or nothing is left."""


class PredictResponse(AnswerHead):
    """The last prefix that was finished in time."""

    model_config = example(
        {
            "model": "iris",
            "version": 1,
            "request_id": "0f8fad5bd9cb469fa16570867728950e",
            "members_used": 2,
            "members_total": 5,
            "stopped_by": "deadline",
            "deadline_ms": 20.0,
            "elapsed_ms": 17.312,
            "expected_accuracy": 0.953,
            "kept_ms": None,
            "predictions": [
                {"class": "setosa", "index": 0, "confidence": 0.93, "probabilities": [0.93, 0.05, 0.02]},
            ],
        }
    )

    predictions: list[Prediction] = []
    """Of a classifier: one for each sample."""
    values: list[list[float]] | None = None
    """Of a regression: for each sample the running average of each output, in the unit of the labels."""


class Progress(Answered):
    """One finished prefix of a request that is still under way."""

    members_used: int
    members_total: int
    elapsed_ms: float
    """From the arrival of the request's head to the encoding of this event."""
    expected_accuracy: float | None = None
    """Accuracy of this prefix on the bundle's held-out split; null for a regression."""
    expected_rmse: float | None = None
    """Of a regression: root mean squared error of this prefix there, in the unit of the labels."""
    predictions: list[Prediction] = []
    """Of a classifier: one for each sample."""
    values: list[list[float]] | None = None
    """Of a regression: for each sample the running average of each output, in the unit of the labels."""


Label = Annotated[int, Field(ge=-(2**31), lt=2**31)] | Value | str | Annotated[list[Value], Field(min_length=1)]


class FeedbackRequest(Asked):
    """True labels for a request that has been answered: classes, or the values of a regression."""

    model_config = example({"request_id": "0f8fad5bd9cb469fa16570867728950e", "labels": ["setosa"]})

    request_id: str
    labels: Annotated[list[Label], Field(min_length=1)]
    """One per sample, in order: an index or the name of a class; of a regression a number, or one for each output."""


class FeedbackResponse(Answered):
    """What the labels say about the answer."""

    request_id: str
    members_used: int
    correct: int | None = None
    """Samples whose answer was right; null for a regression."""
    rmse: float | None = None
    """Of a regression: root mean squared error of the answer, over samples and outputs."""
    samples: int


class Status(Answered):
    """Health or readiness."""

    status: str


class ProblemDocument(Answered):
    """RFC 9457: what went wrong. Some codes add fields of their own."""

    model_config = ConfigDict(
        extra="allow",
        **example(
            {
                "type": "urn:anytime-distil:problem:wrong_shape",
                "title": "Unprocessable Entity",
                "status": 422,
                "code": "wrong_shape",
                "detail": "`inputs` has shape [1, 3], but each sample must be float32[4]: expected [rows, 4].",
                "request_id": "0f8fad5bd9cb469fa16570867728950e",
                "expected": ["rows", 4],
                "got": [1, 3],
            }
        ),
    )

    type: str
    title: str
    status: int
    code: str
    """Stable, for programs."""
    detail: str
    """One sentence, for people."""
    request_id: str
