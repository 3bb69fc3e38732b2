"""What can go wrong in a training run, each as one sentence for the person who started it.

TrainingError
├── BadConfig       a key that does not exist, or a value out of its range
├── BadData         arrays that cannot be trained on: shapes, NaN, labels out of range
├── BadTeacher      a teacher that does not fit the data
├── BadCheckpoint   nothing to resume, or the checkpoint of another run
├── Busy            another process is at work in the same folder
├── NoWeakLearner   the first round found no member, so there is nothing to write
└── ExportError     an exported graph does not compute what torch computes
"""


class TrainingError(Exception):
    """One sentence that says what is wrong and what to do."""


class BadConfig(TrainingError):
    """A key that does not exist, or a value out of its range."""


class BadData(TrainingError):
    """Arrays that cannot be trained on."""


class BadTeacher(TrainingError):
    """A teacher that does not fit the data."""


class BadCheckpoint(TrainingError):
    """There is nothing to resume, or only the checkpoint of another run."""


class Busy(TrainingError):
    """Another process is at work in the same folder."""


class NoWeakLearner(TrainingError):
    """The first round found no member."""


class ExportError(TrainingError):
    """An exported graph does not compute what torch computes."""
