"""`owl3 sources` and `owl3 curate`: what they print and how they end."""

import json
from pathlib import Path

import pytest

from owl3.cli import main
from owl3.cli.curate import parse_resolve
from owl3.errors import ConfigError

RECIPE = """
name: mine
sources:
  - {name: web, files: [in.csv], media: video}
curate:
  - {name: web, source: web, fetch: {allow_private_hosts: ["*.owl3.test"], timeout: 0.2, retries: 0, backoff_s: 0}}
"""


def last_json(capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    found: dict[str, object] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return found


def test_the_catalogue_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sources", "list", "--json"]) == 0
    names = last_json(capsys)["corpora"]
    assert isinstance(names, list) and {"laion-en", "wukong", "msvd"} <= set(names)


def test_a_corpus_is_shown_with_its_hazards_and_a_recipe(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sources", "show", "cc12m"]) == 0
    shown = capsys.readouterr().out
    assert "CC3M has the two columns the other way round" in shown and "corpus: cc12m" in shown


def test_an_unknown_corpus_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sources", "show", "laion"]) == 2
    assert "no corpus 'laion' in the catalogue" in capsys.readouterr().err


def test_any_table_becomes_a_source(workspace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "t.csv").write_text("LINK,TEXT\nhttp://a.example/1,one\nnope,two\n")
    arguments = ["sources", "prepare", "mine", "--from", str(tmp_path / "t.csv"), "--map", "url=LINK,caption=TEXT"]
    assert main([*arguments, "-w", str(workspace), "--json"]) == 0
    counts = last_json(capsys)["counts"]
    assert counts == {"seen": 2, "kept": 1, "dropped": {"bad_url": 1}}
    assert (workspace / "sources" / "mine" / "manifest.json").is_file()


def test_a_dry_run_writes_nothing(workspace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "t.csv").write_text("url,caption\nhttp://a.example/1,one\n")
    arguments = ["sources", "prepare", "mine", "--from", str(tmp_path / "t.csv"), "-w", str(workspace), "--dry-run"]
    assert main(arguments) == 0
    assert not any(workspace.iterdir())


def test_a_source_needs_a_table_or_the_catalogue(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("mine", "cc3m"):
        assert main(["sources", "prepare", name]) == 2
        assert "--from" in capsys.readouterr().err


def test_columns_to_carry_along_are_named_on_the_command_line_too(
    workspace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "t.csv").write_text("url,caption,score,size\nhttp://a.example/1,one,0.5,9\n")
    arguments = ["sources", "prepare", "mine", "--from", str(tmp_path / "t.csv"), "--map", "extra=score,extra=size"]
    assert main([*arguments, "-w", str(workspace), "--dry-run", "--json"]) == 0
    columns = last_json(capsys)["columns"]
    assert isinstance(columns, dict) and columns["extra"] == ["score", "size"]


@pytest.mark.parametrize("name", ["my/mine", "mine ", "../mine"])
def test_the_name_of_a_recipe_is_no_path(name: str, workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (workspace / "recipe.yaml").write_text(f"name: '{name}'\n")
    assert main(["curate", str(workspace / "recipe.yaml"), "-w", str(workspace)]) == 2
    assert "name: write it in lower-case letters, digits and - . _, not" in capsys.readouterr().err


def test_a_misspelt_source_is_told_before_anything_is_done(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (workspace / "recipe.yaml").write_text(RECIPE.replace("source: web", "source: wbe"))
    assert main(["curate", str(workspace / "recipe.yaml"), "-w", str(workspace), "--dry-run"]) == 2
    assert "curate web: no source 'wbe'; the recipe has: web" in capsys.readouterr().err


def test_a_recipe_is_curated_by_name_or_number(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (workspace / "in.csv").write_text("url,caption\nhttp://gone.owl3.test/a.mp4,one\n")
    (workspace / "recipe.yaml").write_text(RECIPE)
    base = ["curate", str(workspace / "recipe.yaml"), "-w", str(workspace), "--json"]
    resolve = ["--resolve", "*.owl3.test=127.0.0.1:1"]  # nothing listens there
    assert main([*base, *resolve, "--only", "0"]) == 0
    done = last_json(capsys)["web"]
    assert isinstance(done, dict) and done["counts"]["dropped"] == {"connection_error": 1}
    assert main([*base, "--only", "web", "--dry-run"]) == 0
    assert last_json(capsys) == {"web": {"done": 1}}
    assert main([*base, "--only", "photos"]) == 2
    assert "no set 'photos'; it has: web" in capsys.readouterr().err


def test_a_dry_run_tells_what_would_end_the_run_at_once(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (workspace / "in.csv").write_text("url,caption\nhttp://gone.owl3.test/a.mp4,one\n")
    (workspace / "recipe.yaml").write_text(RECIPE)
    base = ["curate", str(workspace / "recipe.yaml"), "-w", str(workspace), "--dry-run", "--json"]
    assert main(base) == 0
    assert capsys.readouterr().err == ""
    assert main([*base, "curate.web.fetch.allow_private_hosts=[]"]) == 0
    assert "web: would stop at once: curate web: fetch.contact must say" in capsys.readouterr().err
    assert main([*base, "curate.web.blocklists=[{kind: url, file: gone.txt}]"]) == 0
    assert "web: would stop at once: blocklist url: no file" in capsys.readouterr().err


def test_a_wrong_place_of_a_host_is_told_wherever_one_is_given(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (workspace / "recipe.yaml").write_text(RECIPE)
    (workspace / "shards").mkdir()
    for verb in (["curate", str(workspace / "recipe.yaml")], ["rights", "--recheck"]):
        assert main([*verb, "-w", str(workspace), "--resolve", "127.0.0.1:80"]) == 2
        assert "write it as HOST=ADDRESS:PORT" in capsys.readouterr().err


def test_a_credential_on_the_command_line_goes_into_no_manifest(
    workspace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "t.csv").write_text("url,caption\na.jpg,one\n")
    arguments = ["sources", "prepare", "mine", "--from", str(tmp_path / "t.csv"), "-w", str(workspace)]
    assert main([*arguments, "--base-url", "https://me:password@photos.test/"]) == 2
    told = capsys.readouterr().err
    assert "base_url: holds a credential" in told and "password@" not in told
    assert not any(workspace.iterdir())


@pytest.mark.parametrize(
    ("options", "told"),
    [(["--retry", "--shards", "0:1"], "without --shards"), (["--no-wait"], "give it with --shards")],
)
def test_an_option_that_would_change_nothing_is_wrong_usage(
    options: list[str], told: str, workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (workspace / "recipe.yaml").write_text(RECIPE)
    assert main(["curate", str(workspace / "recipe.yaml"), "-w", str(workspace), *options]) == 2
    assert told in capsys.readouterr().err


def test_a_range_of_shards_is_fetched_and_a_stale_set_is_made_anew_when_asked(
    workspace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (workspace / "in.csv").write_text("url,caption\nhttp://gone.owl3.test/a.mp4,one\n")
    (workspace / "recipe.yaml").write_text(RECIPE)
    base = ["curate", str(workspace / "recipe.yaml"), "--resolve", "*.owl3.test=127.0.0.1:1", "-w", str(workspace)]
    dated = [*base, "--snapshot", "2026-11-22", "--json"]
    assert main([*dated, "--shards", "0:1"]) == 0
    assert list(last_json(capsys)) == ["web-2026-11-22"]
    assert main([*dated, "--dry-run"]) == 0
    assert last_json(capsys) == {"web-2026-11-22": {"fetched": 1}}
    assert main(dated) == 0
    changed = "curate.web.dedup.near_radius=1"
    capsys.readouterr()
    assert main([*dated, changed, "--dry-run"]) == 0
    assert "--backfill makes it anew" in capsys.readouterr().err
    assert main([*dated, changed]) == 2
    assert "curate with --backfill" in capsys.readouterr().err
    assert main([*dated, changed, "--backfill"]) == 0
    assert (workspace / "shards" / "web-2026-11-22" / "manifest.json").is_file()
    assert main([*base, "--shards", "3"]) == 2
    assert "write it as FIRST:LAST" in capsys.readouterr().err


def test_where_hosts_are_can_stand_in_one_variable() -> None:
    assert parse_resolve(["a=1:2,b=3:4", "c=5:6"]) == {"a": "1:2", "b": "3:4", "c": "5:6"}
    with pytest.raises(ConfigError, match="HOST=ADDRESS:PORT"):
        parse_resolve(["a"])
