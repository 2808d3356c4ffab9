"""Wrong inputs, verb by verb: exit code 2, one line on stderr that says what to do, and a clean stdout."""

from pathlib import Path

import pytest

from owl3.cli import main
from owl3.recipe import RECIPES

DEMO = str(RECIPES / "demo.yaml")
NOISE = bytes(range(128, 256)) * 20


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with wrong files of all sorts, and `w`, a workspace with an empty shard set."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OWL3_WORKSPACE", raising=False)
    (tmp_path / "empty").touch()
    (tmp_path / "noise").write_bytes(NOISE)
    (tmp_path / "folder").mkdir()
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    (tmp_path / "w" / "shards" / "photos").mkdir(parents=True)
    (tmp_path / "w" / "datacards").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("line", "told"),
    [
        # a workspace that is none
        ("trace x.test", "workspace: no such workspace; give one with --workspace or OWL3_WORKSPACE"),
        ("trace x.test -w nowhere", "nowhere: no such workspace; give one with --workspace or OWL3_WORKSPACE"),
        ("trace x.test -w folder", "folder: is no workspace, it holds none of sources,"),
        ("trace x.test -w empty", "empty: is a file; give a folder as --workspace"),
        ("report -w folder", "folder: is no workspace, it holds none of sources,"),
        ("report -w w --datacards empty", "--datacards empty: no such folder"),
        ("index -w nowhere", "nowhere: no such workspace;"),
        ("audit demo -w nowhere", "nowhere: no such workspace;"),
        ("card demo -w nowhere", "nowhere: no such workspace;"),
        ("lineage -w nowhere", "nowhere: no such workspace;"),
        ("rights -w nowhere", "nowhere: no such workspace;"),
        ("rights -w w", "w: no shards; curate a corpus first"),
        ("retract --domain x.test -w nowhere", "nowhere: no such workspace;"),
        ("search photos cat -w nowhere", "nowhere: no such workspace;"),
        ("export demo/sft --to out -w nowhere", "nowhere: no such workspace;"),
        (f"run {DEMO} -w empty", "empty: is a file; give a folder as --workspace"),
        ("trace x.test -w gopher://host/w", "--workspace gopher://host/w: Protocol not known: gopher"),
        ("trace x.test -w http://127.0.0.1:9/w", "--workspace http://127.0.0.1:9/w: a web server can't be written to;"),
        # what is asked about
        ("trace '' -w w", "nothing to look for: give a URL, domain,"),
        ("trace nowhere.jpg --as image -w w", "nowhere.jpg: no such picture file"),
        ("trace x.test --as word -w w", "'x.test': choose --as from url, domain,"),
        ("retract --sha256 12ab -w w", "'12ab': a sha256 has 64 hexadecimal digits, this has 4 letters"),
        ("retract --list noise -w w", "noise: not UTF-8 ("),
        ("retract --list nowhere -w w", "nowhere: no such removal list"),
        ("retract -w w", "nothing to retract: give --url, --domain,"),
        ("search clips cat -w w", "w/shards/clips: no such artifact; there are: none"),
        ("export demo -w w --to out", "export demo: write it as RUN/STAGE"),
        ("export demo/sft -w w --to out", "w/runs/demo/sft: no such artifact; there are: none"),
        ("lineage --url nonsense -w w", "--url nonsense: no address of a server;"),
        # recipes and their settings
        ("curate nowhere.yaml", "nowhere.yaml: no such file; give the path of a YAML file"),
        ("curate folder", "folder: is a folder; give the path of a YAML file"),
        ("curate empty", "empty: must hold one mapping of keys to values, this is empty"),
        ("curate noise", "noise: not readable as YAML: byte 1 is not UTF-8;"),
        (f"plan {DEMO} --stage stf", "recipe demo: no stage 'stf'; it has: pretrain, multi_image, sft"),
        (f"build {DEMO} --only pear", f"{DEMO}: build has no set 'pear'; it has: pairs,"),
        (f"curate {DEMO} --only pear", f"{DEMO}: curate has no set 'pear'; it has: scenes, clips"),
        (f"curate {DEMO} --shards 5:2", "--shards 5:2: write it as FIRST:LAST,"),
        (f"curate {DEMO} --resolve here", "--resolve here: write it as HOST=ADDRESS:PORT"),
        (f"run {DEMO} stages.9.steps=1", "override 'stages.9.steps=1': no entry '9' (entries: pretrain,"),
        (f"run {DEMO} name=[", "override 'name=[': not readable as YAML: line 1, column 2:"),
        (f"train {DEMO} --deepspeed-json nowhere", "nowhere: no such file; infra/deepspeed/ has some"),
        (f"train {DEMO} --deepspeed-json noise", "noise: not readable as JSON:"),
        (f"train {DEMO} --report-to excel", "--report-to excel: one of tensorboard, wandb, mlflow"),
        (f"train {DEMO} --grace nan", "train: invalid value for '--grace':"),
        (f"train {DEMO} --timeout inf", "train: invalid value for '--timeout':"),
        (f"launch {DEMO} --deepspeed-json empty", "empty: not readable as JSON:"),
        (f"ablate {DEMO}", "recipe demo: has no section 'ablation',"),
        (f"estimate {DEMO} --urls many", "--urls many: write a number as 250000, 20k,"),
        (f"estimate {DEMO} --assume web.colour=1", "--assume web.colour=1: no such assumption;"),
        (f"estimate {DEMO} --cluster nowhere", "nowhere: no such file; give the path of a YAML file"),
        # models and evaluations
        ("chat nowhere hi", "nowhere: no config.json; give a model folder"),
        ("chat model hi --image nowhere.jpg", "nowhere.jpg: no such file"),
        ("chat model hi --top-p 3", "chat: invalid value for '--top-p':"),
        ("convert nowhere out", "nowhere: no config.json; give a model folder"),
        ("convert model w", "w: exists and is not empty; give a new folder"),
        ("convert model empty", "empty: exists and is not empty; give a new folder"),
        ("eval", "give a model folder and --tasks, or --watch,"),
        ("eval model --tasks pop", "unknown task 'pop'; did you mean pope"),
        ("eval --drain nowhere", "nowhere: no such run; give its folder, as in workspace/runs/demo"),
        ("eval --watch nowhere --dry-run", "nowhere: no such run; give its folder,"),
        ("eval --compare nowhere w", "nowhere: no finished evaluation;"),
        ("judge nowhere --by nonsense", "judge 'nonsense': write it as package.module:function,"),
        # samples, plans, sources, tools
        ("lint nowhere", "nowhere: holds no shards"),
        ("inspect nowhere --step 1", "nowhere: nothing to inspect; give plans/NAME/STAGE,"),
        ("sources show pears", "no corpus 'pears' in the catalogue; there are: cc12m,"),
        ("sources prepare mine", "sources prepare mine: not in the catalogue"),
        ("sources prepare mine --from noise --map url", "--map url: write it as url=URL,caption=TEXT"),
        ("sources prepare mine --from noise", "noise: unknown kind of table; known: parquet,"),
        ("tools install pears", "no tool environment 'pears'; there are: img2dataset, clip, peers, lmms"),
        ("bench pears", "unknown benchmark 'pears'; one of curate,"),
        ("bench plan colour=blue", "bench plan: no setting 'colour'; there are:"),
        ("bench plan colour", "'colour' is not KEY=VALUE"),
    ],
)
def test_a_wrong_input_is_told_in_one_line(line: str, told: str, here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    arguments = [word.strip("'") for word in line.split(" ")]
    if "--json" in _options_of(arguments[0]):
        arguments.append("--json")
    assert main(arguments) == 2
    captured = capfd.readouterr()
    assert told in captured.err
    assert captured.err.startswith("owl3: ")
    assert captured.err.count("\n") == 1
    assert captured.out == ""


def _options_of(verb: str) -> list[str]:
    return [] if verb in ("sources", "tools") else ["--json"]


def test_what_a_terminal_cannot_show_is_written_so_that_json_stays_json(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With LC_ALL=C or a Latin-1 terminal, captions of any language must neither end a verb nor break its output."""
    import io
    import json
    import sys

    from owl3.cli.common import emit

    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii", errors="backslashreplace"))
    emit(True, {"caption": "été 猫 \U0001f989"})
    sys.stdout.flush()
    assert json.loads(written.getvalue()) == {"caption": "été 猫 \U0001f989"}
