"""Everything a request can be answered with instead of a prediction, as RFC 9457 problem documents.

head ──> bytes ──> JSON or .npy ──> fields ──> tensor ──> admitted ──> first prefix
  │        │            │             │          │           │             │
  │        │            │             │          │           │             ├─ NoPrefixInTime 504, MemberFailed 500
  │        │            │             │          │           └─ Overloaded 503, WarmingUp 503, ShuttingDown 503
  │        │            │             │          └─ WrongShape, WrongDtype, NotFinite, EmptyBatch, TooManyRows 422
  │        │            │             └─ InvalidField, -Deadline, NoExitRule 422, UnknownModel, -Version, -Request 404
  │        │            └─ MalformedBody 400
  │        └─ BodyTooLarge 413, RequestTimeout 408
  └─ TooManyConnections 503, RequestTimeout 408, HeadTooLarge 431, MalformedRequest 400, Unauthorized 401

continue ──> kept state: UnknownRequest 404, AlreadyContinuing 409, StateGone 410
stream   ──> upgrade: UpgradeRequired 426, ForeignOrigin 403, NotStreamable 422, TooManyStreams 503
             message: the problems of bytes, JSON, fields and tensor as an event; StreamIdle
load     ──> page: ForeignOrigin 403; bundle: NoSuchBundle 404, BadBundle 422

Problem
├── ClientProblem     the request must change
├── Unavailable       the same request may succeed later
└── ServerProblem     this service is at fault

`code` is stable; `detail` is one sentence that says what was wrong and what to do. Nothing internal goes out:
an unexpected exception is answered by InternalError, and its traceback is logged with the request id.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from http import HTTPStatus
from typing import ClassVar

import orjson
from starlette.responses import Response


class Problem(Exception):
    """An answer that is no prediction.

    Args:
        detail: one sentence.
        members: further fields of the document, for programs.
    """

    status: ClassVar[HTTPStatus]
    code: ClassVar[str]

    def __init__(self, detail: str, **members: object) -> None:
        super().__init__(detail)
        self.detail = detail
        self.members = members
        self.headers: dict[str, str] = {}


class ClientProblem(Problem):
    """The request must change."""

    status = HTTPStatus.UNPROCESSABLE_ENTITY


class Unavailable(Problem):
    """The same request may succeed after `retry_after_s`."""

    status = HTTPStatus.SERVICE_UNAVAILABLE

    def __init__(self, detail: str, retry_after_s: float) -> None:
        seconds = max(1, math.ceil(retry_after_s))
        super().__init__(detail, retry_after_s=seconds)
        self.headers = {"retry-after": str(seconds)}


class ServerProblem(Problem):
    """This service is at fault."""

    status = HTTPStatus.INTERNAL_SERVER_ERROR


class MalformedBody(ClientProblem):
    """The body, or a message of a stream, is neither a JSON object nor an array in .npy form."""

    status = HTTPStatus.BAD_REQUEST
    code = "malformed_body"


class Unauthorized(ClientProblem):
    """The request carries no API key that is known here."""

    status = HTTPStatus.UNAUTHORIZED
    code = "unauthorized"


class MalformedRequest(ClientProblem):
    """What came is no HTTP request."""

    status = HTTPStatus.BAD_REQUEST
    code = "malformed_request"


class HeadTooLarge(ClientProblem):
    """The head of the request does not end."""

    status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
    code = "head_too_large"


class RequestTimeout(ClientProblem):
    """The head or the body of the request came too slowly."""

    status = HTTPStatus.REQUEST_TIMEOUT
    code = "request_timeout"


class BodyTooLarge(ClientProblem):
    """The body exceeds `max_body_bytes`."""

    status = HTTPStatus.REQUEST_ENTITY_TOO_LARGE
    code = "body_too_large"


class HungUp(ClientProblem):
    """The client went away before its answer; nobody reads this one, but it is counted."""

    status = HTTPStatus.BAD_REQUEST
    code = "hung_up"


class InvalidField(ClientProblem):
    """A field is missing, unknown or of the wrong type."""

    code = "invalid_field"


class InvalidDeadline(ClientProblem):
    """`deadline_ms` is not positive, or absurdly large."""

    code = "invalid_deadline"


class NoExitRule(ClientProblem):
    """The bundle has no early exit with a risk as small as `exit_risk`."""

    code = "no_exit_rule"


class WrongShape(ClientProblem):
    """The inputs are ragged or of another shape than the model's."""

    code = "wrong_shape"


class WrongDtype(ClientProblem):
    """The inputs cannot be the model's dtype without loss."""

    code = "wrong_dtype"


class NotFinite(ClientProblem):
    """The inputs hold NaN or infinity, or a number too large for the model's dtype."""

    code = "not_finite"


class EmptyBatch(ClientProblem):
    """There is no row in the inputs."""

    code = "empty_batch"


class TooManyRows(ClientProblem):
    """More rows than `max_rows`."""

    code = "too_many_rows"


class UnknownModel(ClientProblem):
    """No served bundle has that name, or a name is needed because there are several."""

    status = HTTPStatus.NOT_FOUND
    code = "unknown_model"


class UnknownVersion(ClientProblem):
    """The bundle is served, but not in that version."""

    status = HTTPStatus.NOT_FOUND
    code = "unknown_version"


class UnknownRequest(ClientProblem):
    """A request that is not remembered: for feedback, or to be continued."""

    status = HTTPStatus.NOT_FOUND
    code = "unknown_request"


class AlreadyContinuing(ClientProblem):
    """Two requests want to go on from the same kept state; this one came second."""

    status = HTTPStatus.CONFLICT
    code = "already_continuing"


class StateGone(ClientProblem):
    """The state was kept, but has expired, was evicted, went with its bundle, or has nothing left to run."""

    status = HTTPStatus.GONE
    code = "state_gone"


class NoSuchBundle(ClientProblem):
    """The models folder has no such bundle, or not in that version."""

    status = HTTPStatus.NOT_FOUND
    code = "no_such_bundle"


class BadBundle(ClientProblem):
    """The bundle is there, but breaks the contract; what was served before still is."""

    code = "bad_bundle"


class NotFound(ClientProblem):
    """No such path."""

    status = HTTPStatus.NOT_FOUND
    code = "not_found"


class UpgradeRequired(ClientProblem):
    """The path is a WebSocket, and the request does not ask for one."""

    status = HTTPStatus.UPGRADE_REQUIRED
    code = "upgrade_required"


class ForeignOrigin(ClientProblem):
    """A page in a browser that came from another host wants to open a stream, or to change what is served."""

    status = HTTPStatus.FORBIDDEN
    code = "foreign_origin"


class NotStreamable(ClientProblem):
    """The bundle has no chunk graphs, so it takes no sequence in chunks."""

    code = "not_streamable"


class StreamIdle(ClientProblem):
    """The client of a stream has sent nothing for too long."""

    status = HTTPStatus.REQUEST_TIMEOUT
    code = "stream_idle"


class MethodNotAllowed(ClientProblem):
    """The path is there, but not for this method."""

    status = HTTPStatus.METHOD_NOT_ALLOWED
    code = "method_not_allowed"


class Overloaded(Unavailable):
    """The queue is full, or leaves no time for the first member."""

    code = "overloaded"


class TooManyStreams(Unavailable):
    """As many streams are open as may be, or they hold as much."""

    code = "too_many_streams"


class TooManyConnections(Unavailable):
    """As many clients are connected as may be."""

    code = "too_many_connections"


class WarmingUp(Unavailable):
    """Members are still being measured."""

    code = "warming_up"


class ShuttingDown(Unavailable):
    """The service is stopping, or its device thread has died."""

    code = "shutting_down"


class NoPrefixInTime(ServerProblem):
    """Not even the first member fits into the deadline."""

    status = HTTPStatus.GATEWAY_TIMEOUT
    code = "no_prefix_in_time"


class MemberFailed(ServerProblem):
    """The first member raised or gave no finite numbers."""

    code = "member_failed"


class InternalError(ServerProblem):
    """Anything unexpected."""

    code = "internal_error"

    def __init__(self) -> None:
        super().__init__("The service failed on this request; its log tells why under this request id.")


def kinds() -> list[type[Problem]]:
    """The leaves of the tree: every kind of problem that is answered with."""

    def leaves(kind: type[Problem]) -> list[type[Problem]]:
        below = kind.__subclasses__()
        return [leaf for one in below for leaf in leaves(one)] if below else [kind]

    return leaves(Problem)


def codes() -> list[str]:
    """Every code that a problem document may carry."""
    return [kind.code for kind in kinds()]


def document(problem: Problem, request_id: str) -> bytes:
    """The problem as an RFC 9457 document."""
    fields: Mapping[str, object] = {
        "type": f"urn:anytime-distil:problem:{problem.code}",
        "title": problem.status.phrase,
        "status": problem.status.value,
        "code": problem.code,
        "detail": problem.detail,
        "request_id": request_id,
        **problem.members,
    }
    return orjson.dumps(fields)


def problem_response(problem: Problem, request_id: str) -> Response:
    """The answer that carries the document."""
    return Response(
        document(problem, request_id), problem.status, headers=problem.headers, media_type="application/problem+json"
    )
