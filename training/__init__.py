"""Training: decompose a large classifier into an ensemble whose every prefix is an answer (B-DISTIL).

Bring your own::

    data = Data(train=Split(x, y), validation=Split(...), test=Split(...), classes=("cat", "dog"))
    path = distil(teacher, data, [Convolutional(widths=(8, 16))], Config(name="pets"))
"""

try:
    from training.config import Config
    from training.data import Data, Split
    from training.errors import TrainingError
    from training.networks import Convolutional, DenseNet, FullyConnected, ModelClass, Recurrent, ResNet
    from training.pipeline import distil
    from training.targets import Logits
except ModuleNotFoundError as missing:
    # The command is there as soon as serving is installed, and so is this package.
    raise ModuleNotFoundError(
        f"{missing.msg}; training needs more than serving: install it with `pip install '.[train]'` in the repository",
        name=missing.name,
    ) from missing

__all__ = [
    "Config",
    "Convolutional",
    "Data",
    "DenseNet",
    "FullyConnected",
    "Logits",
    "ModelClass",
    "Recurrent",
    "ResNet",
    "Split",
    "TrainingError",
    "distil",
]
