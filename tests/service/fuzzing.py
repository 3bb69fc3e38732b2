"""What schemathesis is told beyond openapi.yaml; it loads this file by SCHEMATHESIS_HOOKS.

The contract says what holds for every bundle. A client of the tiny bundle also knows its name, its shape and its form
in .npy: without that, hardly a request would get past the first check.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import schemathesis
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from schemathesis.core.failures import Failure, ServerError
from schemathesis.core.parameters import ParameterLocation
from schemathesis.core.transport import Response

from service import npy
from tests.tiny import FEATURES

DTYPES = st.sampled_from(["<f4", ">f4", "<f8", "<i4", "|u1", "|b1"])
SHAPES = st.tuples(st.integers(0, 3), st.just(FEATURES)) | arrays.array_shapes(max_dims=3, max_side=5)


@st.composite
def bodies(draw: st.DrawFn) -> bytes:
    """Arrays in .npy form, many of them of the tiny bundle's shape; some end too early, some are none."""
    array: np.ndarray = draw(arrays.arrays(draw(DTYPES), draw(SHAPES)))
    whole = npy.encode(array)
    return draw(st.sampled_from([whole, whole, whole, whole[:-1]]) | st.binary(max_size=200))


schemathesis.openapi.media_type(npy.MEDIA_TYPE, bodies())


@schemathesis.hook
def before_load_schema(context: schemathesis.HookContext, raw_schema: dict[str, Any]) -> None:
    """Narrow requests to what the tiny bundle takes; answers are held against the contract as it is."""
    schemas = raw_schema["components"]["schemas"]
    fields = schemas["PredictRequest"]["properties"]
    fields["inputs"]["items"] = {
        "type": "array",
        "items": {"type": "number"},
        "minItems": FEATURES,
        "maxItems": FEATURES,
    }
    fields["model"]["anyOf"][0]["enum"] = ["tiny", "absent"]
    # An answer that can be continued, and labelled by the example of a feedback.
    schemas["PredictRequest"]["examples"] = [{"inputs": [[1, 2, 3, 4]], "max_members": 1, "keep_ms": 10_000}]
    schemas["FeedbackRequest"]["examples"][0]["labels"] = ["red"]


@schemathesis.hook
def before_call(context: schemathesis.HookContext, case: schemathesis.Case, kwargs: dict[str, Any]) -> None:
    """Leave out the query beside a JSON body, which OpenAPI cannot forbid; keep one that is bad in itself."""
    query = case.meta.components.get(ParameterLocation.QUERY) if case.meta else None
    if case.media_type == "application/json" and query is not None and query.mode.is_positive:
        case.query = {}


@schemathesis.hook
def filter_failure(
    context: schemathesis.HookContext, failure: Failure, case: schemathesis.Case, response: Response
) -> bool:
    """503 and 504 are answers like others: the rest of the checks hold them against the contract."""
    return not (isinstance(failure, ServerError) and response.status_code in (503, 504))


@schemathesis.check
def problems_name_their_request(ctx: schemathesis.CheckContext, response: Response, case: schemathesis.Case) -> None:
    """A problem document says the status and the request id that the response has."""
    (content_type,), (request_id,) = (response.headers[name] for name in ("content-type", "x-request-id"))
    if content_type == "application/problem+json":
        problem = response.json()
        assert (problem["status"], problem["request_id"]) == (response.status_code, request_id)
