"""Secrets that are in the environment or in a URL reach no log, error, file or page."""

import json
import logging
import os
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from curate.hostile import hostile_server, picture, redirect_to
from hypothesis import given
from hypothesis import strategies as st
from planted import SIGNED_QUERY, VARIABLES, WORDS, holding

from owl3.config import Config, load_yaml
from owl3.curate.config import CurateConfig
from owl3.curate.run import curate
from owl3.curate.sources.prepare import SourceConfig, prepare
from owl3.doctor import examine
from owl3.errors import ConfigError, InputError
from owl3.secrecy import (
    _PRESIGNED,
    bare_environment,
    guard_output,
    hide,
    is_signed,
    silenced,
    tells_secret,
    without_user,
)

URLS = [
    "https://someone:planted@bucket.test/a.jpg",
    "s3:/KEY:planted@bucket/work",
    "https://planted@git.test/repo",
    "postgresql+asyncpg://prefect:plan@ted:planted@db:5432/prefect",
    f"https://bucket.test/a.jpg?{SIGNED_QUERY}",
    "https://store.test/a?sv=2024&sig=planted%3D",
    "https://cdn.test/a?Expires=1&Signature=planted&Key-Pair-Id=planted",
    "https://api.test/v1?page=2&access_token=planted#top",
    '<a href="https://x.test/?a=1&amp;token=planted">',
    '{"url": "https://x.test/?a=1\\u0026token=planted"}',
    "Authorization: Bearer planted.planted.planted",
]


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def guarded(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The process's own hooks, put back afterwards."""
    before = logging.getLogRecordFactory()
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr("threading.excepthook", sys.excepthook)
    logging.setLogRecordFactory(logging.LogRecord)
    guard_output()
    yield
    logging.setLogRecordFactory(before)


@pytest.mark.parametrize("text", URLS)
def test_what_a_url_gives_away_is_hidden_and_the_rest_stays(text: str) -> None:
    shown = hide(text)
    assert "planted" not in shown
    assert tells_secret(text) and not tells_secret(shown)
    assert shown.partition("***")[0] in text


def test_what_the_environment_holds_is_hidden_in_every_spelling(planted: None) -> None:
    text = "\n".join([*WORDS, "planted%2Faws%2Bsecret", VARIABLES["HTTPS_PROXY"]])
    assert "planted" not in hide(f"could not: {text}")


@pytest.mark.parametrize(
    "text", ["the tokenizer has 151936 tokens", "false", "a@b.test", "http://a.test/?page=3#x@y", "/data/run-1@2", ""]
)
def test_what_is_no_secret_is_not_touched(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "the tokenizer")
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", "/data/run-1")
    monkeypatch.setenv("DB_PASSWORD", "a")
    assert hide(text) == text


@given(st.text())
def test_hiding_twice_is_hiding_once(text: str) -> None:
    assert hide(hide(text)) == hide(text)


@pytest.mark.parametrize("url", [f"https://b.test/k?{SIGNED_QUERY}", "https://c.test/k?SV=1&Sig=2"])
def test_a_signed_url_is_known_by_its_parameters(url: str) -> None:
    assert is_signed(url)
    assert not is_signed("https://photos.test/k?sig=1&size=2&token=public")


def test_every_kind_of_signed_url_is_known() -> None:
    assert all(is_signed("https://b.test/k?" + "&".join(f"{name}=1" for name in signs)) for signs in _PRESIGNED)


def test_a_user_is_taken_out_of_a_url_and_nothing_else_changes() -> None:
    assert without_user("http://Me:PW@Host.test:80/A%20b?q#f") == "http://Host.test:80/A%20b?q#f"
    assert without_user("HTTP://Host.test/ü ") == "HTTP://Host.test/ü "


def test_an_error_says_no_secret_in_any_form(planted: None) -> None:
    error = InputError(f"no {VARIABLES['HF_TOKEN']} at {URLS[0]}")
    assert "planted" not in f"{error} {error!r} {error.args}"


def test_logs_of_any_library_and_their_tracebacks_say_no_secret(
    planted: None, guarded: None, caplog: pytest.LogCaptureFixture
) -> None:
    try:
        raise OSError(URLS[4])
    except OSError:
        logging.getLogger("some.library").exception("asked %s with %s", URLS[0], VARIABLES["HF_TOKEN"])
    logging.getLogger("some.library").warning("%d %s", 3, "left as it is")
    told, plain = caplog.records
    assert "planted" not in caplog.text and "asked https://***@bucket.test" in caplog.text
    assert "OSError: https://bucket.test" in str(told.exc_text)
    assert plain.args == (3, "left as it is")


def test_what_a_block_raises_says_no_secret_down_to_its_cause(planted: None, guarded: None) -> None:
    with pytest.raises(RuntimeError) as raised, silenced():
        try:
            raise PermissionError(13, "denied", f"s3://{VARIABLES['AWS_SECRET_ACCESS_KEY']}/x")
        except OSError as error:
            raise RuntimeError(URLS[0], 3) from error
    assert "planted" not in "".join(traceback.format_exception(raised.value)).split("raise RuntimeError")[-1]
    assert raised.value.args == ("https://***@bucket.test/a.jpg", 3)
    assert str(raised.value.__cause__) == "[Errno 13] denied: 's3://***/x'"


def test_a_program_that_dies_of_a_bug_says_no_secret() -> None:
    code = (
        "import threading\nfrom owl3.secrecy import guard_output\nguard_output()\n"
        f"threading.Thread(target=lambda: [][{URLS[0]!r}]).start()\nraise ValueError({URLS[4]!r})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "ValueError: https://bucket.test" in done.stderr and "TypeError" in done.stderr
    assert "planted" not in done.stderr


@pytest.mark.parametrize("text", [URLS[0], URLS[4], VARIABLES["HF_TOKEN"]])
def test_a_recipe_with_a_credential_is_refused_and_not_repeated(text: str, tmp_path: Path, planted: None) -> None:
    class Photos(Config):
        folders: tuple[dict[str, str], ...] = ()

    path = tmp_path / "r.yaml"
    path.write_text(json.dumps({"folders": [{"base_url": "http://h.test/"}, {"base_url": text}]}))
    with pytest.raises(ConfigError, match=r"folders\.1\.base_url: holds a credential; .* environment") as refused:
        load_yaml(path, Photos)
    assert "planted" not in "".join(traceback.format_exception(refused.value))


def test_programs_that_read_strangers_bytes_have_no_secrets(planted: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://proxy.test:3128")
    bare = bare_environment()
    assert "planted" not in repr(bare)
    assert bare["PATH"] == os.environ["PATH"] and bare["HTTP_PROXY"] == "http://proxy.test:3128"


def test_the_doctor_says_no_password(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://someone:planted@127.0.0.1:9/api")
    found = repr(examine(tmp_path))
    assert "***@127.0.0.1:9/api does not answer" in found and "planted" not in found


@pytest.mark.processes
def test_curation_writes_no_secret_down(
    planted: None, guarded: None, workspace: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    host = "photos.owl3.test"
    with hostile_server() as web:
        for number in range(3):
            web.page(f"/{number}.jpg", picture(number, (200, 150)))
        web.special["/moved.jpg"] = redirect_to(f"http://store.owl3.test/0.jpg?{SIGNED_QUERY}")
        web.page(f"/0.jpg?{SIGNED_QUERY}", picture(9, (200, 150)))
        web.special["/nowhere.jpg"] = redirect_to(f"ftp://someone:planted@{host}/x.jpg")
        urls = [
            f"http://someone:planted@{host}/1.jpg",
            f"http://{host}/2.jpg?{SIGNED_QUERY}",
            f"http://{host}/moved.jpg",
            f"http://{host}/nowhere.jpg",
            "ftp://someone:planted@host/3.jpg",
        ]
        rows = [{"url": url, "caption": f"picture {number}"} for number, url in enumerate(urls)]
        pq.write_table(pa.Table.from_pylist(rows), workspace / "rows.parquet")
        prepare(SourceConfig(name="web", files=("rows.parquet",)), workspace)
        config = {"contact": "https://owl3.test/contact", "allow_private_hosts": ["*.owl3.test"], "retries": 0}
        made = curate(
            CurateConfig.model_validate({"name": "web", "source": "web", "fetch": config, "image": {"min_side_px": 1}}),
            workspace,
            resolve={"*.owl3.test": f"127.0.0.1:{web.port}"},
        )
    (workspace / "rows.parquet").unlink()
    assert made.parents and made.counts.dropped == {"bad_url": 1}
    assert made.counts.kept == 2, "the one with a user and the one that moved to a signed address"
    dropped = pq.read_table(workspace / "sources" / "web" / "dropped.parquet").column("reason").to_pylist()
    assert dropped == ["signed_url", "bad_url"]
    [moved] = [
        row["final_url"] for row in pq.read_table(workspace / "shards/web/00000.parquet").to_pylist() if row["position"]
    ][:1]
    assert moved == f"http://store.owl3.test/0.jpg?{hide('?' + SIGNED_QUERY)[1:]}"
    assert list(holding([workspace])) == []
    assert "planted" not in caplog.text + "".join(capfd.readouterr())
