"""`serve-ensemble`: the service, set up by its environment."""

from __future__ import annotations

import argparse
import gc
import logging
import os
import signal
import sys

from pydantic import ValidationError

from bundle import BundleError
from service.app import create_app
from service.engine import slices
from service.engine.providers import DeviceUnavailable
from service.logs import configure_logging
from service.server import CannotListen, Server, listen
from service.settings import Settings, misspelt

log = logging.getLogger(__name__)

SWITCH_INTERVAL_S = 5e-4
"""The event loop and the device thread share the interpreter; at Python's default of 5 ms, one could keep the
other from its deadline for that long."""

COLLECT_AFTER = (700, 50, 100)
"""Python's own collections of garbage, but the larger ones, of milliseconds each, more rarely: what requests leave
behind is freed without them, but for what an exception holds."""


def main() -> None:
    """Serve until SIGTERM or SIGINT; exits 0 after a drain, 2 if the service cannot start."""
    _parser().parse_args()
    try:
        settings = Settings()
        configure_logging(settings)
        for variable in misspelt(os.environ):
            log.warning("%s is no setting and changes nothing: `serve-ensemble --help` lists them", variable)
        server = Server(create_app(settings, alone=True))
        sockets = listen(settings)
    except (BundleError, DeviceUnavailable, CannotListen) as error:
        sys.exit(_refusal(str(error)))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = f"ANYTIME_{first['loc'][0]}".upper() if first["loc"] else "ANYTIME_*"
        sys.exit(_refusal(f"{name}: {first['msg'].removeprefix('Value error, ')}."))
    gc.set_threshold(*COLLECT_AFTER)
    # Of this thread, which will be the event loop's.
    slices.shorten()
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    # uvicorn raises the signal again after its drain; by then it has been obeyed.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    server.run(sockets)


def _parser() -> argparse.ArgumentParser:
    lines = [
        f"  ANYTIME_{name.upper()} (default {field.default!r})\n      {' '.join((field.description or '').split())}"
        for name, field in Settings.model_fields.items()
    ]
    return argparse.ArgumentParser(
        prog="serve-ensemble",
        description="Serve bundles of an anytime ensemble over HTTP. Set up by the environment:",
        epilog="\n".join(lines),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def _refusal(sentence: str) -> int:
    print(f"serve-ensemble: {sentence}", file=sys.stderr)  # noqa: T201
    return 2


if __name__ == "__main__":
    main()
