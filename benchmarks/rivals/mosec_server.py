"""mosec: a front end in Rust, one worker process a core, dynamic batches.

Run by the interpreter of an environment that holds mosec, orjson, numpy and onnxruntime, with this file's folder as
the working directory: `python mosec_server.py FOLDER MEMBERS --port PORT`.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from ensemble import Ensemble, from_npy, softmax, to_npy  # type: ignore[import-not-found]
from mosec import Server, Worker  # type: ignore[import-not-found]

FOLDER, MEMBERS = "RIVAL_FOLDER", "RIVAL_MEMBERS"
MAX_BATCH = 16


class Predict(Worker):  # type: ignore[misc]
    """Runs the members on the rows of all requests of a batch."""

    def __init__(self) -> None:
        super().__init__()
        self._ensemble = Ensemble(Path(os.environ[FOLDER]), int(os.environ[MEMBERS]))

    def deserialize(self, data: bytes) -> tuple[bool, Any]:
        """Whether it is .npy, and the rows."""
        if data.startswith(b"\x93NUMPY"):
            return True, from_npy(data)
        return False, np.asarray(orjson.loads(data)["inputs"], self._ensemble.dtype)

    def forward(self, data: list[tuple[bool, Any]]) -> list[tuple[bool, Any]]:
        """Logits of each request."""
        sizes = np.cumsum([len(rows) for _, rows in data])[:-1]
        logits = np.split(self._ensemble.run(np.concatenate([rows for _, rows in data])), sizes)
        return [(binary, one) for (binary, _), one in zip(data, logits, strict=True)]

    def serialize(self, data: tuple[bool, Any]) -> bytes:
        """.npy for .npy, JSON for JSON."""
        binary, logits = data
        return to_npy(softmax(logits)) if binary else orjson.dumps({"predictions": self._ensemble.predictions(logits)})


if __name__ == "__main__":
    # mosec reads the rest of the arguments, and starts its workers as new processes.
    os.environ[FOLDER], os.environ[MEMBERS] = sys.argv.pop(1), sys.argv.pop(1)
    server = Server()
    server.append_worker(Predict, num=os.cpu_count() or 1, max_batch_size=MAX_BATCH, max_wait_time=1, route="/predict")
    server.run()
