# syntax=docker/dockerfile:1
# The service, with the bundles of models/ in it. From the repository's root:
#
#   docker build -f docker/service.Dockerfile -t anytime-service .                            runs on GPU and CPU
#   docker build -f docker/service.Dockerfile -t anytime-service:cpu --build-arg EXTRAS= .    CPU only, without CUDA's libraries
#   docker run --rm -p 127.0.0.1:8000:8000 -e ANYTIME_ALLOW_ANONYMOUS=true [--gpus all] [-v ./models:/models:ro] anytime-service
#
# In a container the service listens beyond loopback, so it wants to be told who may ask: ANYTIME_ALLOW_ANONYMOUS=true
# behind a loopback port or a network of your own, else ANYTIME_API_KEYS. Without either it says so and ends.

FROM python:3.12-slim-bookworm AS base
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1


FROM base AS dependencies
# CUDA comes from wheels and not from the base image: only the driver is the host's.
ARG EXTRAS=cuda
WORKDIR /src
COPY pyproject.toml constraints.txt docker/constraints-cuda.txt README.md LICENSE ./
# No code yet, only what says what it needs: this layer is remade when dependencies change, not when code does.
RUN --mount=type=cache,target=/root/.cache/pip \
    python -m venv /opt/venv \
    && python -m pip install -c constraints.txt -c constraints-cuda.txt ".${EXTRAS:+[$EXTRAS]}" \
    && python -m pip uninstall --yes anytime-distil


FROM dependencies AS package
# The two packages that serving needs. Training stays out, and torch with it.
COPY bundle bundle
COPY service service
RUN --mount=type=cache,target=/root/.cache/pip \
    python -m pip wheel --no-deps --wheel-dir /wheels .


FROM base
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="anytime-distil service" \
      org.opencontainers.image.description="Serves anytime ensembles under per-request deadlines." \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"

# A number that no distribution gives away, so that it means the same on the host and under `runAsNonRoot`.
RUN groupadd --gid 10001 anytime \
    && useradd --uid 10001 --gid 10001 --no-log-init --no-create-home --shell /usr/sbin/nologin anytime
COPY --from=dependencies /opt/venv /opt/venv
# The wheel also brings the command that trains; what that needs is not here.
RUN --mount=type=bind,from=package,source=/wheels,target=/wheels \
    python -m pip install --no-cache-dir --no-deps --no-index /wheels/*.whl \
    && rm /opt/venv/bin/train-ensemble
# Everything belongs to root and nothing is written at run time: the file system may be read-only.
COPY models /models

# onnxruntime reports its use to its maker unless it is told not to, and keeps an identifier in HOME for that.
ENV ORT_DISABLE_TELEMETRY=1 \
    ANYTIME_HOST=0.0.0.0 \
    ANYTIME_PORT=8000 \
    ANYTIME_MODELS_DIR=/models \
    PYTHONDONTWRITEBYTECODE=1
USER 10001:10001
EXPOSE 8000
# Healthy is not yet ready: route traffic by /readyz.
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s --retries=3 CMD ["python", "-m", "service.probe"]
# No shell in between: SIGTERM reaches the server, which drains and exits 0.
ENTRYPOINT ["serve-ensemble"]
