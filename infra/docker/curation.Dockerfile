# CPU image: Prefect worker, curation, building, planning, cards. No GPU libraries.
FROM python:3.11-slim-bookworm

ENV DO_NOT_TRACK=1 \
    PREFECT_SERVER_ANALYTICS_ENABLED=false \
    NO_ALBUMENTATIONS_UPDATE=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    OWL3_WORKSPACE=/workspace

# g++ and ninja: DeepSpeed builds its CPU communication once, below
RUN apt-get update \
    && apt-get install -y --no-install-recommends g++ \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 1000 owl3 \
    && install -d -o owl3 -g owl3 /workspace /opt/owl3 \
    && ln -s /workspace /opt/owl3/workspace

USER owl3
WORKDIR /opt/owl3
COPY --chown=owl3 pyproject.toml constraints.txt README.md LICENSE ./
COPY --chown=owl3 owl3 owl3
COPY --chown=owl3 flows flows
COPY --chown=owl3 datacards datacards
COPY --chown=owl3 infra infra

# TORCH_INDEX: an index that offers torch's CPU build; without one, pip takes the default build, gigabytes of CUDA with it.
# It stays in the image's history, so it holds no password; pip reads those from the secret `netrc`, which does not:
#     docker build --secret id=netrc,src=$HOME/.netrc --file infra/docker/curation.Dockerfile .
ARG TORCH_INDEX=
RUN --mount=type=secret,id=netrc,target=/home/owl3/.netrc,uid=1000 \
    python -m venv .venv \
    && .venv/bin/pip install --no-cache-dir --constraint constraints.txt ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} torch \
    && .venv/bin/pip install --no-cache-dir --constraint constraints.txt --editable '.[s3]' \
    && .venv/bin/owl3 tools install img2dataset \
    && .venv/bin/python -m owl3.train.warmup

ENV PATH=/opt/owl3/.venv/bin:$PATH
VOLUME /workspace
ENTRYPOINT ["owl3"]
CMD ["--help"]
