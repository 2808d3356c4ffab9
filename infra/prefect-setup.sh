#!/usr/bin/env bash
# Make work pools and limits on the Prefect server that PREFECT_API_URL names, then deploy infra/prefect.yaml.
# Run it again after a change: what is there is kept, deployments are updated.
set -euo pipefail
cd "$(dirname "$0")/.."
: "${PREFECT_API_URL:?set PREFECT_API_URL to the server, for example http://127.0.0.1:4200/api}"
prefect=(.venv/bin/python -m prefect --no-prompt)

for pool in owl3-cpu owl3-gpu; do
    "${prefect[@]}" work-pool create "$pool" --type process --overwrite
done
# Steps are tagged with their kind (flows/steps.py): one training per GPU host, two fetches at a time.
"${prefect[@]}" concurrency-limit create train "${OWL3_TRAIN_LIMIT:-1}"
"${prefect[@]}" concurrency-limit create curate "${OWL3_CURATE_LIMIT:-2}"
"${prefect[@]}" deploy --prefect-file infra/prefect.yaml --all
# Alerts, and an evaluation for every checkpoint; what names a block that is not there yet is left out and named.
.venv/bin/python -m flows.automations
