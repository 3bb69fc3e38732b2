"""FastAPI, onnxruntime and a thread pool: what one writes in an afternoon, without the usual slow parts.

The body is read by orjson or numpy rather than validated by pydantic, members run in a pool of one thread a core,
and the answer is encoded once. No deadline, no batch, no limits, no metrics.
"""

from __future__ import annotations

import argparse
import asyncio
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import orjson
import uvicorn
from fastapi import FastAPI, Request
from starlette.responses import Response

from benchmarks.rivals.ensemble import Ensemble, from_npy, softmax, to_npy

NPY = "application/octet-stream"


def create_app(ensemble: Ensemble) -> FastAPI:
    """The application."""
    app = FastAPI()
    pool = ThreadPoolExecutor(os.cpu_count())

    @app.post("/predict")
    async def predict(request: Request) -> Response:
        content = await request.body()
        binary = request.headers.get("content-type") == NPY
        x = from_npy(content) if binary else np.asarray(orjson.loads(content)["inputs"], ensemble.dtype)
        logits = await asyncio.get_running_loop().run_in_executor(pool, ensemble.run, x)
        if binary:
            return Response(to_npy(softmax(logits)), media_type=NPY)
        return Response(orjson.dumps({"predictions": ensemble.predictions(logits)}), media_type="application/json")

    return app


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("members", type=int)
    parser.add_argument("port", type=int)
    options = parser.parse_args()
    app = create_app(Ensemble(options.folder, options.members))
    uvicorn.run(app, port=options.port, log_level="error", access_log=False)


if __name__ == "__main__":
    main()
