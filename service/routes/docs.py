"""GET /docs: the contract as a page for people."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import HTMLResponse, Response

from service.handbook import page

router = APIRouter()

# Nothing but the page's own style: a browser would refuse whatever else was fetched, here or elsewhere.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"


# No coroutine: the first time takes tens of milliseconds, which the event loop does not have.
@router.get("/docs", include_in_schema=False)
def docs(request: Request) -> Response:
    """The handbook, made from the OpenAPI document when it is first asked for."""
    state = request.app.state
    if not hasattr(state, "handbook"):
        state.handbook = page(request.app.openapi())
    return HTMLResponse(state.handbook, headers={"content-security-policy": POLICY})
