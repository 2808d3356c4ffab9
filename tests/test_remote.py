"""A workspace in a store: what is seen there is whole, what is killed goes on, and nobody overwrites anybody."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from owl3 import objectstore, remote
from owl3.cli import main
from owl3.errors import ConfigError, InputError
from owl3.manifest import MANIFEST_NAME, Counts, read_manifest, verify_files, write_manifest
from owl3.objectstore import ObjectStore
from owl3.remote import Store, as_url, is_url, opened, staging_folder


def artifact(workspace: Path, name: str, content: str = "x") -> Path:
    folder = workspace / "samples" / name
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(3):
        (folder / f"{number:05d}.tar").write_text(f"{content}{number}")
    write_manifest(folder, kind="samples", name=name, counts=Counts(seen=3, kept=3))
    return folder


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A store on a disk of its own."""
    return Store((tmp_path / "store").as_uri())


def test_what_is_published_comes_back_byte_for_byte(store: Store, tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    digest = read_manifest(artifact(one, "pairs")).digest
    (one / "tombstones.parquet").write_bytes(b"not of any artifact")
    assert store.publish(one).artifacts == 1
    other.mkdir()
    store.fetch(other)
    manifest = read_manifest(other / "samples" / "pairs")
    assert manifest.digest == digest
    assert verify_files(other / "samples" / "pairs", manifest) == []
    assert (other / "tombstones.parquet").read_bytes() == b"not of any artifact"


def test_a_second_time_nothing_moves(store: Store, tmp_path: Path) -> None:
    one = tmp_path / "one"
    artifact(one, "pairs")
    store.publish(one)
    assert store.publish(one) == store.fetch(one) == remote.Moved()


def test_the_manifest_arrives_last_and_a_killed_publication_goes_on(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    artifact(one, "pairs")
    send, sent = ObjectStore.send, list[str]()

    def note_and_send(self: ObjectStore, source: Path, name: str) -> None:
        sent.append(name)
        send(self, source, name)

    def kill_at_the_third(self: ObjectStore, source: Path, name: str) -> None:
        if len(sent) == 2:
            raise KeyboardInterrupt
        note_and_send(self, source, name)

    monkeypatch.setattr(ObjectStore, "send", kill_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        store.publish(one)
    other.mkdir()
    assert store.fetch(other).artifacts == 0, "nobody sees a half-published artifact"
    monkeypatch.setattr(
        ObjectStore, "send", lambda self, source, name: (sent.append(name), send(self, source, name))[1]
    )
    store.publish(one)
    assert len(sent) == len(set(sent)) == 4
    assert sent[-1] == f"samples/pairs/{MANIFEST_NAME}"
    assert store.fetch(other).artifacts == 1


def test_two_who_change_the_same_artifact_are_told(store: Store, tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    artifact(one, "pairs")
    store.publish(one)
    other.mkdir()
    store.fetch(other)
    artifact(one, "pairs", "new")
    store.publish(one)
    artifact(other, "pairs", "mine")
    with pytest.raises(InputError, match="somebody else published"):
        store.publish(other)
    with pytest.raises(InputError, match="changed here and there"):
        store.fetch(other)


def test_what_was_taken_away_on_purpose_goes_there_too_and_stays_away(store: Store, tmp_path: Path) -> None:
    """A withdrawn card and a removed run; not what somebody deleted to have room."""
    one, other = tmp_path / "one", tmp_path / "other"
    for place in ("datacards/demo/1.0.0", "datacards/demo/1.0.1", "runs/demo/sft", "samples/pairs"):
        made = one / place
        made.parent.mkdir(parents=True, exist_ok=True)
        artifact(tmp_path / "made", "pairs").rename(made)
        (made / "checkpoints").mkdir()
        (made / "checkpoints" / "loose.json").write_text("{}")
    store.publish(one)
    for place, note in (("datacards/demo/1.0.0", "cards/demo/1.0.0"), ("runs/demo", "runs/demo")):
        shutil.rmtree(one / place)
        (one / "retired" / note).parent.mkdir(parents=True)
        (one / "retired" / f"{note}.json").write_text("{}")
    shutil.rmtree(one / "samples")
    store.fetch(one)
    assert not (one / "runs" / "demo").exists() and not (one / "datacards" / "demo" / "1.0.0").exists()
    store.publish(one)
    other.mkdir()
    store.fetch(other)
    for folder in (one, other):
        left = {path.parent.relative_to(folder).as_posix() for path in folder.rglob(MANIFEST_NAME)}
        assert left == {"datacards/demo/1.0.1", "samples/pairs"}
    assert not [path for path in (tmp_path / "store").rglob("*") if path.is_file() and "runs/demo/" in path.as_posix()]


def test_a_newer_version_there_is_taken(store: Store, tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    artifact(one, "pairs")
    store.publish(one)
    other.mkdir()
    store.fetch(other)
    digest = read_manifest(artifact(one, "pairs", "new")).digest
    store.publish(one)
    store.fetch(other)
    assert read_manifest(other / "samples" / "pairs").digest == digest


def test_bytes_that_differ_from_the_manifest_are_never_taken(store: Store, tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    artifact(one, "pairs")
    store.publish(one)
    (tmp_path / "store" / "samples" / "pairs" / "00001.tar").write_text("y1")
    other.mkdir()
    with pytest.raises(InputError, match="differs from its manifest"):
        store.fetch(other)
    assert not (other / "samples" / "pairs" / MANIFEST_NAME).exists()


@pytest.mark.parametrize("name", ["../outside.txt", "/etc/outside.txt", "runs/../../outside.txt"])
def test_a_store_cannot_write_outside_of_the_staging_folder(name: str, tmp_path: Path) -> None:
    there, here = tmp_path / "there", tmp_path / "deep" / "here"
    folder = there / "shards" / "web"
    folder.mkdir(parents=True)
    (folder / "outside.txt").write_text("x")
    write_manifest(folder, kind="shards", name="web", counts=Counts(seen=0, kept=0), recipe={})
    honest = (folder / MANIFEST_NAME).read_text()
    (folder / MANIFEST_NAME).write_text(honest.replace("outside.txt", name))
    with pytest.raises(InputError, match="leads out of the artifact's folder"):
        Store(f"file://{there}").fetch(here)
    (folder / MANIFEST_NAME).write_text(honest)
    (there / "_loose.json").write_text(json.dumps({name: {"bytes": 1, "sha256": sha256(b"x").hexdigest()}}))
    with pytest.raises(InputError, match="leads out of the workspace"):
        Store(f"file://{there}").fetch(here)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["deep", "there"]


def test_a_busy_store_is_asked_again(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objectstore, "_PAUSE_S", 0.0)
    artifact(tmp_path / "one", "pairs")
    put, calls = store._store._files.put_file, list[int]()

    def busy(*arguments: Any) -> None:
        calls.append(1)
        if len(calls) % 2:
            raise OSError("503 Slow Down")
        put(*arguments)

    monkeypatch.setattr(store._store._files, "put_file", busy)
    assert store.publish(tmp_path / "one").files == 3
    monkeypatch.setattr(store._store._files, "exists", refuse(OSError("500 Internal Error")))
    with pytest.raises(InputError, match="the store keeps failing: 500"):
        store.fetch(tmp_path / "one")


def refuse(error: Exception) -> Callable[..., Any]:
    def call(*_: Any) -> None:
        raise error

    return call


def test_credentials_in_a_url_are_refused_and_not_repeated() -> None:
    with pytest.raises(ConfigError) as refused:
        as_url(Path("s3://KEY:SECRET@bucket/work"))
    assert "SECRET" not in str(refused.value) and "KEY" not in str(refused.value)
    assert as_url(Path("s3://bucket/work")) == "s3://bucket/work"
    assert is_url(Path("s3://bucket/work")) and not is_url(Path("work")) and not is_url(Path("/w/s3"))


def test_without_a_folder_to_stage_in_the_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv(remote.STAGING, raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    with pytest.raises(ConfigError, match="no home folder; set OWL3_STAGING"):
        remote.staging_folder("s3://bucket/work")
    monkeypatch.setenv(remote.STAGING, "/proc/nowhere")
    with pytest.raises(ConfigError, match="can't be staged in /proc/nowhere"), remote.staged("s3://bucket/work"):
        raise AssertionError("nothing can be staged there")


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    """An S3 server on 127.0.0.1 with one bucket."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        values = {"ENDPOINT_URL": f"http://{host}:{port}", "ACCESS_KEY_ID": "k", "SECRET_ACCESS_KEY": "hush"}
        for key, value in (values | {"DEFAULT_REGION": "us-east-1", "EC2_METADATA_DISABLED": "true"}).items():
            monkeypatch.setenv(f"AWS_{key}", value)
        monkeypatch.setenv(remote.STAGING, str(tmp_path / "staging"))
        boto3.client("s3").create_bucket(Bucket="owl3")
        yield "s3://owl3/work"
    finally:
        server.stop()


def test_a_verb_works_on_a_workspace_in_s3(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "t.csv").write_text("url,caption\nhttp://a.example/1,one\n")
    assert main(["sources", "prepare", "mine", "--from", str(tmp_path / "t.csv"), "-w", bucket, "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["counts"]["kept"] == 1
    monkeypatch.setenv(remote.STAGING, str(tmp_path / "another-machine"))
    with opened(Path(bucket)) as folder:
        manifest = read_manifest(folder / "sources" / "mine")
        assert verify_files(folder / "sources" / "mine", manifest) == []
        assert folder == staging_folder(bucket)
        assert b"hush" not in b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
    assert os.environ["AWS_SECRET_ACCESS_KEY"] == "hush"


@pytest.mark.parametrize(
    ("refusal", "told"),
    [
        (PermissionError("Access Denied"), "memory://work: the store refuses it: Access Denied; credentials and host"),
        (RuntimeError("Unable to locate credentials"), "the store can't be asked: Unable to locate credentials; cred"),
        (KeyError(), "memory://work: the store can't be asked: KeyError; credentials"),
    ],
)
def test_what_another_attempt_cannot_cure_is_told_at_once(
    refusal: Exception, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def refuse(path: str) -> bool:
        asked.append(path)
        raise refusal

    store = remote.Store("memory://work")
    monkeypatch.setattr(store._store, "_files", type("Files", (), {"exists": staticmethod(refuse)}))
    with pytest.raises(InputError) as raised:
        store.fetch(Path("nowhere"))
    assert told in str(raised.value)
    assert len(asked) == 1
