"""The contract between training and service: a folder of ONNX members and its manifest.

Public surface: the manifest models, :func:`open_bundle`, :func:`write_bundle` and the errors they raise.
`bundle.reference` (the plain evaluation loop) is imported on its own, because it needs onnxruntime.
"""

import os

# onnxruntime would report its use to its maker, from a thread of its own and with a database in the home folder.
# It reads this when it is loaded, and every package here imports `bundle` first.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

from bundle.chunk import Chunk
from bundle.edges import Connection, State, Tensor
from bundle.errors import BundleError, BundleNotFound, InvalidBundle
from bundle.manifest import (
    FORMAT_VERSION,
    Manifest,
    Member,
    Refinement,
    Round,
    Teacher,
    Training,
)
from bundle.quality import Evaluation, ExitRule, Outlook, Prefix, Scores
from bundle.store import Bundle, latest_version, list_names, list_versions, open_bundle, write_bundle

__all__ = [
    "FORMAT_VERSION",
    "Bundle",
    "BundleError",
    "BundleNotFound",
    "Chunk",
    "Connection",
    "Evaluation",
    "ExitRule",
    "InvalidBundle",
    "Manifest",
    "Member",
    "Outlook",
    "Prefix",
    "Refinement",
    "Round",
    "Scores",
    "State",
    "Teacher",
    "Tensor",
    "Training",
    "latest_version",
    "list_names",
    "list_versions",
    "open_bundle",
    "write_bundle",
]
