"""Networks in stages, with named taps: one file a family."""

from training.networks.convolutional import Convolutional
from training.networks.fully_connected import FullyConnected
from training.networks.staged import LogitsOnly, ModelClass, Normalise, StagedNetwork

__all__ = ["Convolutional", "FullyConnected", "LogitsOnly", "ModelClass", "Normalise", "StagedNetwork"]
