"""Networks in stages, with named taps: one file a family."""

from training.networks.convolutional import Convolutional
from training.networks.densenet import DenseNet
from training.networks.fully_connected import FullyConnected
from training.networks.recurrent import Frames, Recurrent, RecurrentNetwork
from training.networks.resnet import ResNet
from training.networks.staged import LogitsOnly, ModelClass, Normalise, StagedNetwork, scale_widths
from training.networks.synchronised import synchronise

__all__ = [
    "Convolutional",
    "DenseNet",
    "Frames",
    "FullyConnected",
    "LogitsOnly",
    "ModelClass",
    "Normalise",
    "Recurrent",
    "RecurrentNetwork",
    "ResNet",
    "StagedNetwork",
    "scale_widths",
    "synchronise",
]
