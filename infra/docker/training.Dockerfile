# GPU image: training and evaluation. The CUDA compiler stays in it, for DeepSpeed's fused kernels are built at first use.
FROM nvidia/cuda:13.0.1-devel-ubuntu24.04

ENV DO_NOT_TRACK=1 \
    PREFECT_SERVER_ANALYTICS_ENABLED=false \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    TOKENIZERS_PARALLELISM=false \
    OWL3_WORKSPACE=/workspace

RUN apt-get update \
    && apt-get install -y --no-install-recommends python3 python3-venv python3-dev g++ \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 1001 owl3 \
    && install -d -o owl3 -g owl3 /workspace /opt/owl3 \
    && ln -s /workspace /opt/owl3/workspace

USER owl3
WORKDIR /opt/owl3
COPY --chown=owl3 pyproject.toml constraints.txt README.md LICENSE ./
COPY --chown=owl3 owl3 owl3
COPY --chown=owl3 flows flows
COPY --chown=owl3 datacards datacards
COPY --chown=owl3 infra infra

RUN --mount=type=secret,id=netrc,target=/home/owl3/.netrc,uid=1001 \
    python3 -m venv .venv \
    && .venv/bin/pip install --no-cache-dir --constraint constraints.txt --editable '.[s3,tracking]'

ENV PATH=/opt/owl3/.venv/bin:$PATH
VOLUME /workspace
ENTRYPOINT ["owl3"]
CMD ["doctor"]
