"""The card as Croissant 1.1 with the RAI vocabulary.

The one file object is checksums.txt beside it, which lists every tar and table of the corpus with its sha256 (and which
`sha256sum -c` understands), so the description stays small at any number of shards and nothing escapes it. The record
sets describe the tables.

Source: https://docs.mlcommons.org/croissant/docs/croissant-spec-1.1.html, croissant-rai-spec.html
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from owl3.cards.facts import Fact, Facts
from owl3.cards.figure import Value
from owl3.manifest import Manifest

CONFORMS_TO = ["http://mlcommons.org/croissant/1.1", "http://mlcommons.org/croissant/RAI/1.0"]

CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "arrayShape": "cr:arrayShape",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "containedIn": "cr:containedIn",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "description": {"@container": "@language"},
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileProperty": "cr:fileProperty",
    "fileObject": "cr:fileObject",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isArray": "cr:isArray",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "name": {"@container": "@language"},
    "parentField": "cr:parentField",
    "path": "cr:path",
    "prov": "http://www.w3.org/ns/prov#",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}

_URL_FIELDS = {
    "sample_id": ("sc:Text", "128-bit hash of canonical URL and caption, in hexadecimal"),
    "url": ("sc:URL", "where the picture was fetched"),
    "domain": ("sc:Text", "registered domain or host of the URL"),
    "caption": ("sc:Text", "text that stood with the picture"),
    "licence": ("sc:Text", "licence as the source states it"),
    "decision": ("sc:Text", "kept or dropped"),
    "reason": ("sc:Text", "why it was dropped, from a closed list; empty when kept"),
    "shard": ("sc:Text", "number of the tar"),
    "key": ("sc:Text", "name of the sample's members in the tar"),
    "sha256": ("sc:Text", "hash of the picture as stored"),
    "width": ("sc:Integer", "pixels"),
    "height": ("sc:Integer", "pixels"),
}
_SAMPLE_FIELDS = {
    "sample_id": ("sc:Text", "hash of builder, version, seed and ordered parents"),
    "decision": ("sc:Text", "kept or dropped"),
    "reason": ("sc:Text", "why it was dropped, from a closed list; empty when kept"),
    "kind": ("sc:Text", "interleaved, selective, video, instruct and so on"),
    "builder": ("sc:Text", "which builder made it"),
    "licence": ("sc:Text", "the strictest licence of its parents"),
    "images": ("sc:Integer", "pictures or frames in the sample"),
}


def croissant(
    facts: Facts,
    version: str,
    parents: Sequence[Manifest],
    figures: Mapping[str, Value],
    *,
    checksums: bytes,
    languages: Sequence[str],
) -> dict[str, Any]:
    """Return the JSON-LD document.

    Args:
        checksums: Content of checksums.txt.
    """
    return {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "name": facts.name,
        "alternateName": facts.pretty_name,
        "description": facts.summary.text,
        "conformsTo": CONFORMS_TO,
        "license": facts.licence.url,
        "url": facts.citation.url,
        "citeAs": facts.citation.bibtex,
        "version": version,
        "datePublished": facts.released.isoformat(),
        "inLanguage": list(languages),
        "creator": {"@type": "sc:Organization", "name": facts.contact.name},
        "publisher": {"@type": "sc:Organization", "name": facts.provider.name},
        "keywords": ["image-text pairs", "multi-image", *facts.tasks],
        "isLiveDataset": False,
        **_rai(facts, figures),
        "prov:wasDerivedFrom": [
            {"@id": f"{parent.kind}/{parent.name}", "prov:value": f"sha256:{parent.digest}"}
            for manifest in parents
            for parent in manifest.parents
        ],
        "distribution": [_checksums(checksums), *(part for manifest in parents for part in _files(manifest))],
        "recordSet": [_records(manifest) for manifest in parents],
    }


def _rai(facts: Facts, figures: Mapping[str, Value]) -> dict[str, Any]:
    def text(fact: Fact) -> str:
        return f"{fact.text} (Source: {fact.source})"

    seen, kept = figures.get("rows.seen", 0), figures.get("rows.kept", 0)
    return {
        "rai:dataCollection": text(facts.collection),
        "rai:dataCollectionType": {
            "synthetic": "Software Collection",
            "user": "User-Generated Content",
        }.get(facts.kind, "Web Scraping"),
        "rai:dataCollectionTimeFrame": [
            day.isoformat() for day in (facts.collected.start, facts.collected.end) if day is not None
        ],
        "rai:dataCollectionMissingData": f"{kept} of {seen} URLs were kept; dropped ones are listed with a reason.",
        "rai:dataCollectionRawData": text(facts.provenance),
        "rai:dataPreprocessingProtocol": [text(facts.rights_measures), text(facts.illegal_content_measures)],
        "rai:dataAnnotationProtocol": [text(facts.annotation)],
        "rai:dataBiases": [text(fact) for fact in facts.biases],
        "rai:dataLimitations": [text(fact) for fact in (*facts.hazards, *facts.unsuitable_uses)],
        "rai:dataUseCases": [text(fact) for fact in facts.intended_uses],
        "rai:dataSocialImpact": text(facts.purpose),
        "rai:personalSensitiveInformation": [
            text(facts.personal_data),
            text(facts.sensitive_content),
            text(facts.consent),
        ],
        "rai:dataReleaseMaintenancePlan": text(facts.maintenance),
    }


def _checksums(content: bytes) -> dict[str, Any]:
    return {
        "@type": "cr:FileObject",
        "@id": "checksums.txt",
        "name": "checksums.txt",
        "description": "sha256 of every tar and table of the corpus, relative to the workspace.",
        "contentUrl": "checksums.txt",
        "contentSize": f"{len(content)} B",
        "encodingFormat": "text/plain",
        "sha256": hashlib.sha256(content).hexdigest(),
    }


def _files(manifest: Manifest) -> list[dict[str, Any]]:
    folder = f"{manifest.kind}/{manifest.name}"
    return [
        {
            "@type": "cr:FileSet",
            "@id": f"{folder}/tables",
            "name": f"{folder}/tables",
            "description": "One row per URL or sample, kept or dropped.",
            "encodingFormat": "application/x-parquet",
            "includes": f"{folder}/[0-9][0-9][0-9][0-9][0-9].parquet",
        },
        {
            "@type": "cr:FileSet",
            "@id": f"{folder}/tars",
            "name": f"{folder}/tars",
            "description": "WebDataset tars: pictures, texts and JSON records.",
            "encodingFormat": "application/x-tar",
            "includes": f"{folder}/*.tar",
        },
    ]


def _records(manifest: Manifest) -> dict[str, Any]:
    folder = f"{manifest.kind}/{manifest.name}"
    fields = _SAMPLE_FIELDS if manifest.kind == "samples" else _URL_FIELDS
    return {
        "@type": "cr:RecordSet",
        "@id": f"{folder}/rows",
        "name": f"{folder}/rows",
        "key": {"@id": f"{folder}/rows/sample_id"},
        "field": [
            {
                "@type": "cr:Field",
                "@id": f"{folder}/rows/{name}",
                "name": f"{folder}/rows/{name}",
                "description": description,
                "dataType": kind,
                "source": {"fileSet": {"@id": f"{folder}/tables"}, "extract": {"column": name}},
            }
            for name, (kind, description) in fields.items()
        ],
    }
