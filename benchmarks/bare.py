"""What a team writes without this project: FastAPI, one onnxruntime session, Starlette's thread pool.

`python -m benchmarks.bare GRAPH PORT` serves one ONNX graph at POST /predict. It reads and writes JSON as fast as it
can be done (orjson, no pydantic on the way), and knows nothing of deadlines.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnxruntime as ort
import orjson
import uvicorn
from fastapi import FastAPI, Request, Response
from starlette.concurrency import run_in_threadpool

START_S = 60.0


def create_app(graph: Path) -> FastAPI:
    """The server."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    entry = session.get_inputs()[0]
    dtype = {"tensor(uint8)": np.uint8, "tensor(float)": np.float32}[entry.type]
    app = FastAPI()

    def run(body: bytes) -> bytes:
        inputs = np.asarray(orjson.loads(body)["inputs"], dtype)
        (logits,) = session.run(["logits"], {entry.name: inputs})
        exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
        probabilities = exponentials / exponentials.sum(axis=1, keepdims=True)
        winners = logits.argmax(axis=1)
        return orjson.dumps(
            {
                "predictions": [
                    {"index": index, "confidence": row[index]}
                    for index, row in zip(winners.tolist(), probabilities.tolist(), strict=True)
                ]
            }
        )

    @app.post("/predict")
    async def predict(request: Request) -> Response:
        return Response(await run_in_threadpool(run, await request.body()), media_type="application/json")

    return app


@contextmanager
def serving_bare(graph: Path) -> Iterator[str]:
    """The server as a process of its own, until the block ends; yields its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with subprocess.Popen([sys.executable, "-m", "benchmarks.bare", str(graph), str(port)]) as process:
        try:
            _await_listening(process, port)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


def _await_listening(process: subprocess.Popen[bytes], port: int) -> None:
    give_up = time.monotonic() + START_S
    while process.poll() is None and time.monotonic() < give_up:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.05)
    raise RuntimeError("the bare server did not start")


def main() -> None:
    graph, port = sys.argv[1:]
    uvicorn.run(create_app(Path(graph)), host="127.0.0.1", port=int(port), log_level="warning", access_log=False)


if __name__ == "__main__":
    main()
