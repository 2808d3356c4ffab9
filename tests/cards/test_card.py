"""A card says the same on every rendering, in every format, and nothing that its facts do not hold."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import mlcroissant
import pytest
import yaml
from huggingface_hub import DatasetCard

from owl3.cards import drawing, eu
from owl3.cards.audit import audit
from owl3.cards.config import CardConfig
from owl3.cards.facts import load_facts
from owl3.cards.figure import Value
from owl3.cards.figures import FIGURES
from owl3.cards.render import card, size_category
from owl3.errors import ConfigError, InputError, StaleError
from owl3.ledger import open_duckdb
from owl3.manifest import read_manifest

from .conftest import DATACARDS, make_card
from .forge import edit_rows, reseal

CONFIG = CardConfig(name="demo", shards=("tiny",), samples=("pairs",))


def test_the_same_inputs_give_the_same_bytes(workspace: Path, tmp_path: Path) -> None:
    first, second = make_card(workspace, tmp_path / "one"), make_card(workspace, tmp_path / "two")
    for path in first.iterdir():
        if path.name != "manifest.json":
            assert path.read_bytes() == (second / path.name).read_bytes(), path.name
    manifests = [json.loads((folder / "manifest.json").read_bytes())["digest"] for folder in (first, second)]
    assert manifests[0] == manifests[1]


def test_a_current_card_is_left_alone(workspace: Path, datacards: Path) -> None:
    before = (datacards / "demo" / "1.0.0" / "manifest.json").stat().st_mtime_ns
    card(CONFIG, workspace, datacards)
    assert (datacards / "demo" / "1.0.0" / "manifest.json").stat().st_mtime_ns == before


def test_a_released_version_is_not_rendered_from_other_facts(workspace: Path, datacards: Path) -> None:
    facts = datacards / "demo" / "facts.yaml"
    facts.write_text(facts.read_text().replace("English only", "English and French"))
    with pytest.raises(StaleError, match=r"raise card\.version"):
        card(CONFIG, workspace, datacards)
    assert card(CONFIG.model_copy(update={"version": "1.1.0"}), workspace, datacards).name == "demo/1.1.0"
    card(CONFIG, workspace, datacards, replace=True)


def test_the_header_is_one_that_the_hub_reads(datacards: Path) -> None:
    loaded = DatasetCard.load(datacards / "demo" / "1.0.0" / "README.md")
    assert loaded.data.license == "cc0-1.0"
    assert loaded.data.language == ["en"]
    assert loaded.data.size_categories == ["n<1K"]
    headings = re.findall(r"^#{1,3} (.+)$", loaded.content, re.MULTILINE)
    for heading in (
        "Dataset Details",
        "Uses",
        "Dataset Structure",
        "Dataset Creation",
        "Curation Rationale",
        "Citation",
    ):
        assert heading in headings


def test_the_croissant_is_valid_and_names_every_artifact(datacards: Path) -> None:
    path = datacards / "demo" / "1.0.0" / "croissant.json"
    dataset = mlcroissant.Dataset(jsonld=str(path))
    assert not dataset.metadata.ctx.issues.errors
    assert not dataset.metadata.ctx.issues.warnings
    files = {file.id: file for file in dataset.metadata.distribution}
    assert {"shards/tiny/tables", "shards/tiny/tars", "samples/pairs/tables"} <= set(files)
    listing = path.with_name("checksums.txt").read_bytes()
    assert files["checksums.txt"].sha256 == hashlib.sha256(listing).hexdigest()
    assert json.loads(path.read_bytes())["rai:personalSensitiveInformation"]


def test_the_checksums_are_ones_that_coreutils_accepts(workspace: Path, datacards: Path) -> None:
    listing = datacards / "demo" / "1.0.0" / "checksums.txt"
    done = subprocess.run(["sha256sum", "--check", "--quiet", listing], cwd=workspace, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout


def test_times_and_hosts_of_the_artifacts_leave_no_trace(workspace: Path, tmp_path: Path) -> None:
    """Two machines that made the same artifacts render the same card."""
    first = make_card(workspace, tmp_path / "one")
    for path in workspace.glob("*/*/manifest.json"):
        data = json.loads(path.read_bytes()) | {"started": "1999-01-01", "ended": "1999-01-02", "host": "elsewhere"}
        path.write_text(json.dumps(data))
    second = make_card(workspace, tmp_path / "two")
    for path in first.iterdir():
        if path.name != "manifest.json":
            assert path.read_bytes() == (second / path.name).read_bytes(), path.name


def test_the_page_asks_for_nothing_from_elsewhere(datacards: Path) -> None:
    text = (datacards / "demo" / "1.0.0" / "card.html").read_text()
    assert "<script" not in text
    assert not re.findall(r'(?:src|href)="(?!#|data:|https://creativecommons)[^"]*"', text)
    assert "default-src 'none'" in text


def test_every_figure_stands_in_the_readme(datacards: Path) -> None:
    folder = datacards / "demo" / "1.0.0"
    readme = (folder / "README.md").read_text()
    from owl3.cards.figures import FIGURES

    names = set(json.loads((folder / "figures.json").read_bytes()))
    for figure in FIGURES:
        if figure.drawing != "ids":
            assert figure.title.split(" (")[0] in readme, figure.name
    assert "Not measured: CLIP similarity" in readme
    assert "quality.similarity" not in names


def test_conservation_holds_on_the_card(datacards: Path) -> None:
    values = json.loads((datacards / "demo" / "1.0.0" / "figures.json").read_bytes())
    assert values["rows.seen"] == values["rows.kept"] + sum(amount for _, amount in values["rows.drops"])
    assert values["samples.seen"] == values["samples.kept"] + sum(amount for _, amount in values["samples.drops"])
    assert sum(row[2] for row in values["pictures.width_px"]) == values["rows.kept"]


@pytest.mark.parametrize(("num_domains", "size", "listed"), [(100, "large", 10), (101, "large", 11), (100, "small", 5),
                                                             (100_000, "small", 1000), (3, "small", 1)])  # fmt: skip
def test_the_summary_lists_as_many_domains_as_the_template_asks(num_domains: int, size: str, listed: int) -> None:
    assert eu.num_listed(num_domains, size) == listed


def test_the_summary_names_the_fetch_engine_that_was_used(workspace: Path) -> None:
    shards = read_manifest(workspace / "shards" / "tiny")
    assert eu.collector([shards]) == "owl3"
    fetched = shards.model_copy(update={"tools": shards.tools | {"img2dataset": "1.47.0"}})
    assert eu.collector([shards, fetched]) == "owl3 with img2dataset"


def test_a_missing_fact_is_an_error_that_names_it(datacards: Path) -> None:
    path = datacards / "demo" / "facts.yaml"
    facts = yaml.safe_load(path.read_text())
    del facts["consent"]
    path.write_text(yaml.safe_dump(facts))
    with pytest.raises(ConfigError, match=r"facts\.yaml: consent: Field required"):
        load_facts(datacards, "demo")


@pytest.mark.parametrize("phrase", ["", "  ", "TBD", "More information needed", "n/a", "[More Information Needed]"])
def test_a_phrase_that_says_nothing_is_no_fact(datacards: Path, phrase: str) -> None:
    path = datacards / "demo" / "facts.yaml"
    facts = yaml.safe_load(path.read_text())
    facts["purpose"]["text"] = phrase
    path.write_text(yaml.safe_dump(facts))
    with pytest.raises(ConfigError, match=r"purpose\.text"):
        load_facts(datacards, "demo")


def test_a_card_of_an_unfinished_artifact_is_refused(workspace: Path, datacards: Path) -> None:
    with pytest.raises(ConfigError, match="shards 'nowhere' is not finished"):
        card(CardConfig(name="demo", shards=("nowhere",)), workspace, datacards)


def test_size_categories_are_the_hubs_words() -> None:
    assert [size_category(n) for n in (0, 999, 1000, 10**6, 5 * 10**9, 5 * 10**12)] == [
        "n<1K",
        "n<1K",
        "1K<n<10K",
        "1M<n<10M",
        "1B<n<10B",
        "n>1T",
    ]


@pytest.mark.parametrize("path", sorted(DATACARDS.glob("*/facts.yaml")), ids=lambda path: path.parent.name)
def test_every_facts_file_that_we_ship_is_complete(path: Path) -> None:
    facts = load_facts(DATACARDS, path.parent.name)
    for key, fact in facts.statements().items():
        assert fact.source, key


def test_the_spdx_document_keeps_the_dataset_profile(datacards: Path) -> None:
    """What the model's pages demand of a DatasetPackage, checked element by element (spdx-spec v3.0.1)."""
    document = json.loads((datacards / "demo" / "1.0.0" / "spdx.json").read_bytes())
    graph = document["@graph"]
    identities = [entry["spdxId"] for entry in graph if "spdxId" in entry]
    assert len(identities) == len(set(identities))
    packages = [entry for entry in graph if entry["type"] == "dataset_DatasetPackage"]
    assert len(packages) == 3
    for package in packages:
        for key in ("originatedBy", "builtTime", "releaseTime", "software_downloadLocation", "software_primaryPurpose"):
            assert package[key]
        assert set(package["dataset_datasetType"]) <= {"image", "text", "video"}
    relations = [entry for entry in graph if entry["type"] == "Relationship"]
    for relation in relations:
        assert {relation["from"], *relation["to"]} <= set(identities)
    for kind in ("hasDeclaredLicense", "hasConcludedLicense"):
        assert sorted(r["from"] for r in relations if r["relationshipType"] == kind) == sorted(
            package["spdxId"] for package in packages
        )
    assert packages[0]["dataset_hasSensitivePersonalInformation"] == "no"


@pytest.mark.parametrize("name", ["domains.top", "rows.licences", "captions.languages", "samples.licences"])
def test_shares_are_of_all_and_not_of_the_most_frequent_that_are_listed(name: str) -> None:
    figure = next(figure for figure in FIGURES if figure.name == name)
    rows = [[f"label {number}", 10] for number in range(20)]
    values: dict[str, Value] = {name: rows, "rows.kept": 1000, "samples.kept": 1000}
    assert drawing.html(figure, rows, values).count("1.0 %") == 20


@pytest.mark.parametrize(
    "column", ["caption", "domain", "language", "licence", "source", "phash", "width", "http_status"]
)
def test_a_column_without_values_leaves_its_figures_out_and_is_no_exception(
    column: str, workspace: Path, tmp_path: Path
) -> None:
    for path in sorted((workspace / "shards" / "tiny").glob("0000?.parquet")):
        edit_rows(path, lambda rows: [row | {column: None} for row in rows])
    reseal(workspace / "shards" / "tiny")
    assert (make_card(workspace, tmp_path / "datacards") / "card.html").is_file()


@pytest.mark.parametrize("edit", [{"media_offset": None}, {"media_bytes": 1}, {"media_offset": 2**40}, {"shard": None}])
def test_a_picture_that_is_not_where_the_table_says_is_named(
    edit: dict[str, Any], workspace: Path, tmp_path: Path
) -> None:
    for path in sorted((workspace / "shards" / "tiny").glob("0000?.parquet")):
        edit_rows(path, lambda rows: [row | edit for row in rows])
    reseal(workspace / "shards" / "tiny")
    with pytest.raises(InputError, match="see `owl3 audit`"):
        make_card(workspace, tmp_path / "datacards")


def test_a_sampled_audit_of_such_a_table_is_false_and_no_exception(workspace: Path, datacards: Path) -> None:
    for path in sorted((workspace / "shards" / "tiny").glob("0000?.parquet")):
        edit_rows(path, lambda rows: [row | {"media_offset": None} for row in rows])
    result = audit(datacards / "demo" / "1.0.0", workspace, sample=0.01)
    assert not result.passed


def test_samples_with_the_same_licences_are_one_row_in_whatever_order_they_name_them() -> None:
    figure = next(figure for figure in FIGURES if figure.name == "samples.licences")
    named = [
        "CC0-1.0 | CC-BY-4.0",
        "CC-BY-4.0 | CC0-1.0",
        "CC0-1.0",
        "CC-BY-4.0 | CC0-1.0 | MIT",
        "MIT | CC0-1.0 | CC-BY-4.0",
    ]
    with open_duckdb() as db:
        db.execute("create table samples as select unnest(?) as licence", [named])
        assert db.execute(figure.query).fetchall() == [
            ("CC-BY-4.0 | CC0-1.0", 2),
            ("CC-BY-4.0 | CC0-1.0 | MIT", 2),
            ("CC0-1.0", 1),
        ]
