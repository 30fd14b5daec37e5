# syntax=docker/dockerfile:1
FROM python:3.12-slim-bookworm AS base
ENV PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1
# The id is fixed, so that volumes keep their owner when the image is built anew.
RUN useradd --uid 10001 --create-home jobledger \
    && install --directory --mode 0700 --owner jobledger --group jobledger /var/lib/jobledger

FROM base AS build
COPY . /src
RUN pip wheel --no-deps --wheel-dir /wheels /src

FROM base AS test
RUN apt-get update \
    && apt-get install --yes --no-install-recommends make procps redis-server \
    && rm -rf /var/lib/apt/lists/*
COPY --chown=jobledger:jobledger . /src
WORKDIR /src
RUN pip install --editable '.[controller,pictures,postgres,dev]' && chown -R jobledger:jobledger /src
USER jobledger
CMD ["python", "-m", "pytest"]

FROM base AS runtime
COPY --from=build /wheels /wheels
RUN pip install "$(ls /wheels/jobledger-*.whl)[controller,pictures,postgres]" && rm -rf /wheels
USER jobledger
WORKDIR /home/jobledger
ENV JOBLEDGER_DATA_DIR=/var/lib/jobledger
CMD ["jobledger", "--help"]
