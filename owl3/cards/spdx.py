"""The card as an SPDX 3.0.1 document with the dataset profile, in JSON-LD.

One `dataset_DatasetPackage` for the corpus, one for each artifact behind it with its digest, `contains` and
`descendantOf` relationships between them, and the licence as an expression, declared and concluded for each.
Identifiers are URNs made of names and digests, so the same card gives the same document.

Source: https://spdx.github.io/spdx-spec/v3.0.1/model/Dataset/Classes/DatasetPackage/
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from owl3.cards.facts import Fact, Facts
from owl3.cards.figure import Value
from owl3.manifest import Manifest

CONTEXT = "https://spdx.org/rdf/3.0.1/spdx-context.jsonld"
CREATION = "_:creation"

_AVAILABILITY = {"public": "directDownload", "scraped": "scrapingScript", "licensed": "query", "user": "registration"}


def spdx(facts: Facts, version: str, parents: Sequence[Manifest], figures: Mapping[str, Value]) -> dict[str, Any]:
    """Return the document."""
    base = f"urn:owl3:{facts.name}:{version}"
    agent, corpus, licence = f"{base}:agent", f"{base}:corpus", f"{base}:licence"
    graph: list[dict[str, Any]] = [
        {
            "type": "CreationInfo",
            "@id": CREATION,
            "specVersion": "3.0.1",
            "created": f"{facts.released.isoformat()}T00:00:00Z",
            "createdBy": [agent],
        },
        {"type": "Organization", "spdxId": agent, "creationInfo": CREATION, "name": facts.contact.name},
        {
            "type": "simplelicensing_LicenseExpression",
            "spdxId": licence,
            "creationInfo": CREATION,
            "simplelicensing_licenseExpression": facts.licence.spdx,
        },
        _corpus(facts, version, figures, corpus, agent),
    ]
    identities = {parent.digest: f"urn:owl3:{parent.kind}:{parent.name}:{parent.digest[:16]}" for parent in parents}
    graph += [_artifact(facts, parent, identities[parent.digest], agent) for parent in parents]
    graph.append(_relationship(f"{base}:contains", "contains", corpus, list(identities.values())))
    for parent in parents:
        before = [identities[p.digest] for p in parent.parents if p.digest in identities]
        if before:
            name = f"{identities[parent.digest]}:parents"
            graph.append(_relationship(name, "descendantOf", identities[parent.digest], before))
    # The dataset profile asks for exactly one declared and one concluded licence of every package.
    for package in [corpus, *identities.values()]:
        graph.append(_relationship(f"{package}:declared", "hasDeclaredLicense", package, [licence]))
        graph.append(_relationship(f"{package}:concluded", "hasConcludedLicense", package, [licence]))
    elements = [entry["spdxId"] for entry in graph if "spdxId" in entry]
    graph.append(
        {
            "type": "SpdxDocument",
            "spdxId": f"{base}:document",
            "creationInfo": CREATION,
            "name": f"{facts.pretty_name} {version}",
            "profileConformance": ["core", "software", "simpleLicensing", "dataset"],
            "rootElement": [corpus],
            "element": elements,
        }
    )
    return {"@context": CONTEXT, "@graph": graph}


def _corpus(facts: Facts, version: str, figures: Mapping[str, Value], identity: str, agent: str) -> dict[str, Any]:
    kept, num_bytes = figures.get("rows.kept", 0), figures.get("pictures.bytes", 0)
    video = bool(figures.get("samples.frames"))
    return {
        "type": "dataset_DatasetPackage",
        "spdxId": identity,
        "creationInfo": CREATION,
        "name": facts.pretty_name,
        "description": facts.summary.text,
        "software_packageVersion": version,
        "software_primaryPurpose": "data",
        "software_downloadLocation": _location(facts),
        "originatedBy": [agent],
        "builtTime": f"{facts.collected.end.isoformat()}T00:00:00Z",
        "releaseTime": f"{facts.released.isoformat()}T00:00:00Z",
        "dataset_datasetType": ["image", "text", *(["video"] if video else [])],
        "dataset_datasetSize": num_bytes,
        "dataset_datasetNoise": f"{kept} samples were kept; every dropped one is listed with its reason in the ledger.",
        "dataset_datasetAvailability": _AVAILABILITY.get(facts.kind, "directDownload"),
        "dataset_confidentialityLevel": "clear",
        "dataset_dataCollectionProcess": _text(facts.collection),
        "dataset_dataPreprocessing": [_text(facts.rights_measures), _text(facts.illegal_content_measures)],
        "dataset_intendedUse": " ".join(_text(fact) for fact in facts.intended_uses),
        "dataset_knownBias": [_text(fact) for fact in facts.biases],
        "dataset_hasSensitivePersonalInformation": "yes" if facts.has_personal_data else "no",
        "dataset_anonymizationMethodUsed": [_text(facts.personal_data)],
        "dataset_datasetUpdateMechanism": _text(facts.maintenance),
    }


def _artifact(facts: Facts, manifest: Manifest, identity: str, agent: str) -> dict[str, Any]:
    counts = manifest.counts
    return {
        "type": "dataset_DatasetPackage",
        "spdxId": identity,
        "creationInfo": CREATION,
        "name": f"{manifest.kind} {manifest.name}",
        "description": f"{counts.kept} of {counts.seen} kept. The digest covers all files, counts and parents.",
        "software_primaryPurpose": "data",
        "software_downloadLocation": _location(facts),
        "originatedBy": [agent],
        "builtTime": f"{facts.collected.end.isoformat()}T00:00:00Z",
        "releaseTime": f"{facts.released.isoformat()}T00:00:00Z",
        "dataset_datasetType": ["image", "text"],
        "dataset_datasetSize": sum(entry.bytes for entry in manifest.files if not entry.volatile),
        "verifiedUsing": [{"type": "Hash", "algorithm": "sha256", "hashValue": manifest.digest}],
    }


def _relationship(identity: str, kind: str, start: str, ends: list[str]) -> dict[str, Any]:
    return {
        "type": "Relationship",
        "spdxId": identity,
        "creationInfo": CREATION,
        "relationshipType": kind,
        "from": start,
        "to": ends,
    }


def _location(facts: Facts) -> str:
    return facts.citation.url


def _text(fact: Fact) -> str:
    return f"{fact.text} (Source: {fact.source})"
