"""lmms-eval itself, its caption metrics and their Java tokenizer: they say of a tiny model what we say of it."""

import io
import json
import os
import random
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset, Features, Value
from datasets import Image as ImageFeature
from PIL import Image
from transformers import PreTrainedTokenizerFast

from owl3 import lifeline, tools
from owl3.errors import InputError
from owl3.eval.evaluate import evaluate, load_items
from owl3.eval.generate import Generator
from owl3.eval.items import Item
from owl3.eval.lmms import lmms_results
from owl3.eval.metrics.captions import bleu_4, rouge_l
from owl3.eval.metrics.cider import cider
from owl3.eval.metrics.words import words_of
from owl3.eval.registry import find_task
from owl3.eval.results import read_records, summarise
from owl3.model.config import Owl3Config
from owl3.model.image_processing import Owl3ImageProcessor
from owl3.model.modeling import Owl3ForConditionalGeneration
from owl3.model.processing import Owl3Processor
from owl3.tokens import END_OF_TEXT, TURN_END, train_tiny

PLEASE = " Answer the question using a single word or phrase."
SPLITS = ("adversarial", "popular", "random")
TASKS = {
    "pope_here": """
include: POPE
task: pope_here
generation_kwargs: {max_new_tokens: 1}
lmms_eval_specific_kwargs:
  default: {pre_prompt: "", post_prompt: " Answer the question using a single word or phrase."}
""",
    "choose_here": """
task: choose_here
test_split: test
output_type: multiple_choice
doc_to_visual: !function here.visual
doc_to_text: "{{question}} Answer the question using a single word or phrase."
doc_to_target: "{{['yes', 'no'].index(answer)}}"
doc_to_choice: ["yes", "no"]
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]
""",
    "likely_here": """
task: likely_here
test_split: test
output_type: loglikelihood
doc_to_visual: !function here.visual
doc_to_text: "{{question}} Answer the question using a single word or phrase."
doc_to_target: "{{answer}}"
process_results: !function here.is_likely
metric_list: [{metric: agreed, aggregation: mean, higher_is_better: true}]
""",
    "rounds_here": """
task: rounds_here
test_split: test
output_type: generate_until_multi_round
doc_to_visual: !function here.visual
doc_to_text: !function here.ask_on
doc_to_target: "answer"
generation_kwargs: {max_new_tokens: 1}
process_results: !function here.count_rounds
metric_list: [{metric: rounds, aggregation: mean, higher_is_better: true}]
""",
}
HERE = """
def visual(doc):
    return [doc["image"].convert("RGB")]

def is_likely(doc, results):
    return {"agreed": float(results[0][1])}

def ask_on(doc, lmms_eval_specific_kwargs=None, previous_output=None, round_idx=None, previous_round_info=None):
    if round_idx is None:
        return doc["question"]
    if round_idx == 2:
        return None, None, True, previous_output, None
    return visual(doc), "Is it? " + previous_output[-1], False, previous_output, None

def count_rounds(doc, results):
    return {"rounds": float(len(results[0]) if isinstance(results[0], list) else len(results))}
"""


@pytest.fixture(scope="module")
def packages() -> Path:
    """lmms-eval, installed through the door that users have."""
    try:
        tools.install("lmms")
    except InputError as error:
        pytest.skip(f"needs the package registry: {error}")
    return tools.packages("lmms")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model that says yes or no, by what it sees."""
    torch.manual_seed(0)
    tokenizer = train_tiny(["yes no yes no yes no Is there a red green blue thing in the image?" + PLEASE], 400)
    text = {"vocab_size": tokenizer.vocab_size, "hidden_size": 32, "intermediate_size": 48}
    config = Owl3Config.preset("tiny", fusion="gated", text_config=text, initializer_range=0.2)
    made = Owl3ForConditionalGeneration(config)
    (yes,), (no,) = tokenizer.encode("yes"), tokenizer.encode("no")
    with torch.no_grad():
        head, direction = made.get_output_embeddings().weight, torch.randn(32)
        head.zero_()
        head[yes], head[no] = direction, -direction
    folder = tmp_path_factory.mktemp("model")
    made.save_pretrained(folder)
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend, eos_token=TURN_END, pad_token=END_OF_TEXT)
    pictures = Owl3ImageProcessor(image_size=config.vision_config.image_size, cut_enable=False)
    Owl3Processor(pictures, wrapped, release="240728").save_pretrained(folder)  # type: ignore[arg-type]
    return folder


@pytest.fixture(scope="module")
def questions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """POPE in its own layout, and the same rows as a data set of lmms-eval's."""
    folder, rng = tmp_path_factory.mktemp("pope"), random.Random(0)
    rows, own = [], {split: list[dict[str, Any]]() for split in SPLITS}
    for number in range(24):
        picture = Image.new("RGB", (40, 30), tuple(rng.randrange(256) for _ in range(3)))
        for _ in range(6):
            colour = tuple(rng.randrange(256) for _ in range(3))
            picture.paste(colour, (rng.randrange(30), rng.randrange(20), 35, 28))
        body = io.BytesIO()
        picture.save(body, "PNG")
        (folder / f"{number}.png").write_bytes(body.getvalue())
        asked = f"Is there a {rng.choice(['red', 'green', 'blue'])} thing in the image?"
        answer, split = rng.choice(["yes", "no"]), SPLITS[number % 3]
        row = {"question_id": str(number), "question": asked, "answer": answer, "category": split}
        rows.append({**row, "image": {"bytes": body.getvalue(), "path": None}})
        own[split].append({"question_id": number, "image": f"{number}.png", "text": asked, "label": answer})
    for split, lines in own.items():
        (folder / f"coco_pope_{split}.json").write_text("\n".join(map(json.dumps, lines)))
    kinds = {name: Value("string") for name in ("question_id", "question", "answer", "category")}
    Dataset.from_list(rows, features=Features(**kinds, image=ImageFeature())).to_parquet(folder / "test.parquet")
    return folder


def run_lmms_eval(packages: Path, model: Path, questions: Path, out: Path, processes: int) -> dict[str, Any]:
    """What a user types, and what lmms-eval writes then: task -> figures."""
    tasks = out / "tasks"
    tasks.mkdir(parents=True)
    (tasks / "here.py").write_text(HERE)
    for name, text in TASKS.items():
        data = f"dataset_path: parquet\ndataset_kwargs: {{data_files: {{test: {questions / 'test.parquet'}}}}}\n"
        pope = str(packages / "lmms_eval/tasks/pope/pope.yaml")
        (tasks / f"{name}.yaml").write_text(text.replace("POPE", pope) + data)
    launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"] if processes > 1 else []
    command = [sys.executable, *launch, "-m", "lmms_eval", "--model", "owl3", "--model_args", f"pretrained={model}"]
    command += ["--tasks", ",".join(TASKS), "--include_path", str(tasks), "--batch_size", "4"]
    command += ["--output_path", str(out), "--log_samples"]
    paths = os.pathsep.join([str(packages), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": paths, "HF_DATASETS_OFFLINE": "1"}
    done = subprocess.run(lifeline.wrap(command), env=environment, capture_output=True, text=True, timeout=600)
    written = list(out.glob("*/*_results.json"))
    assert done.returncode == 0 and len(written) == 1, done.stdout[-3000:] + done.stderr[-3000:]
    results: dict[str, Any] = json.loads(written[0].read_text())["results"]
    return results


@pytest.mark.parametrize("processes", [1, 2])
def test_lmms_eval_finds_us_and_gives_the_scores_that_we_give(
    packages: Path, model: Path, questions: Path, tmp_path: Path, processes: int
) -> None:
    theirs = run_lmms_eval(packages, model, questions, tmp_path / "theirs", processes)
    task = replace(find_task("pope"), max_new_tokens=1, cut=False)
    answerer, items = Generator.load(model), load_items(task, questions)
    written = evaluate(task, items, answerer, tmp_path / "written", settings={})
    chosen = evaluate(task, items, answerer, tmp_path / "chosen", settings={}, choose=True)
    said = {record.id.partition("-")[2]: record.answer for record in read_records(tmp_path / "written")}
    assert len(set(said.values())) == 2, "a model that always says the same shows nothing"
    (samples,) = (tmp_path / "theirs").glob("*/*_samples_pope_here.jsonl")
    rows = [json.loads(line)["pope_accuracy"] for line in samples.read_text().splitlines()]
    assert {row["question_id"]: row["prediction"] for row in rows} == said
    assert theirs["pope_here"]["pope_accuracy,none"] == pytest.approx(written["figures"]["accuracy"], abs=1e-6)
    assert theirs["choose_here"]["acc,none"] == pytest.approx(chosen["figures"]["accuracy"], abs=1e-6)
    assert theirs["rounds_here"]["rounds,none"] == 2.0
    assert theirs["likely_here"]["agreed,none"] == 0.0  # greedy decoding never ends this model's answers


def test_lmms_eval_s_own_table_reads_our_results(packages: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(packages))
    from lmms_eval.utils import make_table

    items = [Item(f"random-{i}", ("?",), ("yes" if i % 2 else "no",), ("yes", "no")) for i in range(10)]
    task = find_task("pope")
    summary = summarise(task, items, [task.record(item, "yes") for item in items])
    shown = make_table(json.loads(json.dumps(lmms_results({"pope": summary}, "m", {"batch_size": 4}))))
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in shown.splitlines()]
    row = next(row for row in cells if row[:1] == ["pope"] and "f1" in row)
    assert "0.6667" in row and "↑" in row


@pytest.mark.skipif(shutil.which("java") is None, reason="needs Java, which the official tokenizer is written in")
def test_captions_are_split_and_scored_as_by_the_official_code(packages: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Words of hard pieces in random heaps, token by token; what the same heaps score, to the last printed digit."""
    monkeypatch.syspath_prepend(str(packages))
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge
    from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer

    path = Path(__file__).parents[1] / "eval" / "caption_words.jsonl"
    pieces = [piece for line in path.read_text().splitlines() for piece in json.loads(line)["caption"].split()]
    rng = random.Random(0)
    heaps = [" ".join(rng.choices(pieces, k=rng.randint(1, 12))) for _ in range(2000)]
    heaps += [" ".join(heap.split()[1:]) for heap in heaps[:1000]]
    # A caption that says nothing stands between: how the next one begins may change the last word there.
    apart = {i: [{"caption": text}, {"caption": "q"}] for i, text in enumerate(heaps)}
    official = {i: words[0] for i, words in PTBTokenizer().tokenize(apart).items()}
    different = [text for i, text in enumerate(heaps) if tuple(official[i].split()) != words_of(text)]
    assert not different, different[:5]
    said, references = heaps[2000:], [[heaps[i], heaps[1000 + i]] for i in range(1000)]
    of = {i: [official[2000 + i]] for i in range(1000)}
    to = {i: [official[i], official[1000 + i]] for i in range(1000)}
    assert cider(said, references) == pytest.approx(list(Cider().compute_score(to, of)[1]), abs=1e-12)
    assert list(map(rouge_l, said, references)) == pytest.approx(list(Rouge().compute_score(to, of)[1]), abs=1e-12)
    assert bleu_4(said, references) == pytest.approx(Bleu(4).compute_score(to, of, verbose=0)[0][3], abs=1e-9)
