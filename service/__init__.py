"""The online side: an ensemble's prefixes over HTTP, each request by its deadline. Never torch, never training."""

import bundle as _bundle  # noqa: F401  (first: it keeps onnxruntime from reporting its use)
