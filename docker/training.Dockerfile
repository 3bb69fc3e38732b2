# syntax=docker/dockerfile:1
# The trainer. From the repository's root:
#
#   docker build -f docker/training.Dockerfile -t anytime-training .
#   docker run --rm --user "$(id -u):$(id -g)" -v ./models:/models [--gpus all] anytime-training digits
#
# `--user` lets it write into your folder; without it, bundles go to a volume that user 10001 may write. `search RECIPE`
# goes in the place of `digits`, and `reproduce NAME` too, with `-v ./docs:/docs` for what it writes.

FROM python:3.12-slim-bookworm AS base
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1


FROM base AS dependencies
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
# No code yet, only what says what it needs: this layer is remade when dependencies change, not when code does.
RUN --mount=type=cache,target=/root/.cache/pip \
    python -m venv /opt/venv \
    && python -m pip install -c constraints.txt ".[train]" \
    && python -m pip uninstall --yes anytime-distil


FROM dependencies AS package
# The two packages that training needs. The service stays out.
COPY bundle bundle
COPY training training
RUN --mount=type=cache,target=/root/.cache/pip \
    python -m pip wheel --no-deps --wheel-dir /wheels .


FROM base
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="anytime-distil training" \
      org.opencontainers.image.description="Trains anytime ensembles and writes them as ONNX bundles." \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"

RUN groupadd --gid 10001 anytime \
    && useradd --uid 10001 --gid 10001 --no-log-init --no-create-home --shell /usr/sbin/nologin anytime \
    && install --directory --owner=10001 --group=10001 /models
COPY --from=dependencies /opt/venv /opt/venv
# The wheel also brings the command that serves; what that needs is not here.
RUN --mount=type=bind,from=package,source=/wheels,target=/wheels \
    python -m pip install --no-cache-dir --no-deps --no-index /wheels/*.whl \
    && rm /opt/venv/bin/serve-ensemble

# Caches of torch and matplotlib follow HOME, and under `--user` there is none. onnxruntime reports its use to its
# maker unless it is told not to.
ENV HOME=/tmp \
    ORT_DISABLE_TELEMETRY=1 \
    PYTHONDONTWRITEBYTECODE=1
VOLUME /models
# Bundles go to `models` here, their checkpoints beside them: on the volume they outlive the container, for `--resume`.
WORKDIR /
USER 10001:10001
# No options: before `search` or `reproduce` there may be none.
ENTRYPOINT ["train-ensemble"]
