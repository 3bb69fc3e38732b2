"""What the rivals serve: the first members of a bundle one after the other, numpy and onnxruntime only.

Nothing of this project is imported: a rival may run in an environment of its own.
"""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime as ort


class Ensemble:
    """A bundle's first `members` members.

    Args:
        folder: of the bundle.
        members: how many to run.
    """

    def __init__(self, folder: Path, members: int) -> None:
        manifest = json.loads((folder / "manifest.json").read_text())
        self.classes: list[str] = manifest["classes"]
        self.dtype = np.dtype(manifest["input"]["dtype"])
        self._input: str = manifest["input"]["name"]
        self._members = manifest["members"][:members]
        options = ort.SessionOptions()
        # The threads are the server's: one a request.
        options.intra_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._sessions = [
            ort.InferenceSession(folder / member["file"], options, providers=["CPUExecutionProvider"])
            for member in self._members
        ]

    def run(self, x: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Mean logits of the members, or those of one that replaces it, (rows, classes); `x` is (rows, *input)."""
        total: Any = 0.0
        count = 0
        kept: dict[tuple[int, str], npt.NDArray[Any]] = {}
        for member, session in zip(self._members, self._sessions, strict=True):
            feed = {link["input"]: kept[link["from_member"], link["from_output"]] for link in member["connections"]}
            if self._input in {edge.name for edge in session.get_inputs()}:
                feed[self._input] = x
            names = [output["name"] for output in member["outputs"]]
            for name, value in zip(names, session.run(names, feed), strict=True):
                kept[member["index"], name] = value
            logits = kept[member["index"], member["logits"]]
            total, count = (logits, 1) if member.get("combine") == "replace" else (total + logits, count + 1)
        answer: npt.NDArray[np.float32] = total / np.float32(count)
        return answer

    def predictions(self, logits: npt.NDArray[np.float32]) -> list[dict[str, Any]]:
        """Class, index and confidence of each row."""
        probabilities = softmax(logits)
        winners = logits.argmax(axis=1).tolist()
        return [
            {"class": self.classes[index], "index": index, "confidence": float(row[index])}
            for index, row in zip(winners, probabilities, strict=True)
        ]


def softmax(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Probabilities over the last axis."""
    exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True))
    result: npt.NDArray[np.float32] = exponentials / exponentials.sum(axis=-1, keepdims=True)
    return result


def from_npy(content: bytes) -> npt.NDArray[Any]:
    """An array."""
    array: npt.NDArray[Any] = np.load(io.BytesIO(content), allow_pickle=False)
    return array


def to_npy(array: npt.NDArray[Any]) -> bytes:
    """Its bytes."""
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()
