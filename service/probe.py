"""`python -m service.probe` asks /healthz of the service that this environment sets up; exits 0 if it is sound.

For a container's health check: nothing beyond the standard library, because it runs every few seconds.
"""

from __future__ import annotations

import http.client
import os
import ssl
import sys

TIMEOUT_S = 2.0


def main() -> int:
    """0 if the service is sound, 1 if it is not or does not answer."""
    host = os.environ.get("ANYTIME_HOST", "127.0.0.1")
    # An address that stands for all of them is not one that can be asked.
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    port = int(os.environ.get("ANYTIME_PORT", "8000"))
    if os.environ.get("ANYTIME_TLS_CERTIFICATE"):
        # The certificate is for the name that clients use, not for this one; nothing secret is sent.
        context = ssl._create_unverified_context()
        connection: http.client.HTTPConnection = http.client.HTTPSConnection(
            host, port, timeout=TIMEOUT_S, context=context
        )
    else:
        connection = http.client.HTTPConnection(host, port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", "/healthz")
        return 0 if connection.getresponse().status == 200 else 1
    except OSError:
        return 1


if __name__ == "__main__":
    sys.exit(main())
