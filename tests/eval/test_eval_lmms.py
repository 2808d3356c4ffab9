"""lmms-eval's interface, stood in for by a few lines; `tests/soak/test_lmms_eval.py` runs the package itself."""

import importlib
import sys
import tomllib
from collections.abc import Sequence
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image

from owl3.errors import ConfigError
from owl3.eval.evaluate import Ask
from owl3.eval.generate import Weighed
from owl3.eval.lmms import lmms_results
from owl3.eval.media import Shown


class Echo:
    """Says how it was asked."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.weighed: list[tuple[str, tuple[str, ...]]] = []
        self.model = SimpleNamespace(device="cpu")

    def answer(self, shown: Sequence[Shown], ask: Ask) -> list[str]:
        self.batches.append(len(shown))
        return [f"{one.item.text()} {len(one.pictures)} {ask.max_new_tokens}\n\nmore" for one in shown]

    def weigh(self, shown: Shown, candidates: Sequence[str], *, cut: bool) -> Weighed:
        self.weighed.append((shown.item.text(), tuple(candidates)))
        lengths = torch.tensor([len(candidate) for candidate in candidates])
        return Weighed(-2.0 * lengths, lengths == 3, lengths)


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Any:
    base, registry = ModuleType("lmms_eval.api.model"), ModuleType("lmms_eval.api.registry")
    instance = ModuleType("lmms_eval.api.instance")
    instance.GenerationResult = lambda text: SimpleNamespace(text=text)  # type: ignore[attr-defined]
    api = ModuleType("lmms_eval.api")
    api.instance = instance  # type: ignore[attr-defined]
    base.lmms = type("lmms", (), {"__init__": lambda self: setattr(self, "task_dict", {})})  # type: ignore[attr-defined]
    registry.register_model = lambda *_: lambda cls: cls  # type: ignore[attr-defined]
    for name, module in {
        "lmms_eval": ModuleType("lmms_eval"),
        "lmms_eval.api": api,
        "lmms_eval.api.instance": instance,
        "lmms_eval.api.model": base,
        "lmms_eval.api.registry": registry,
    }.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.delitem(sys.modules, "owl3.eval.lmms_plugin.models.owl3", raising=False)
    from owl3.eval.lmms_plugin.models import AVAILABLE_MODELS
    from owl3.eval.lmms_plugin.models import owl3 as plugin

    made = getattr(plugin, AVAILABLE_MODELS["owl3"])("folder", batch_size="2", load=lambda _: Echo())
    picture = Image.new("L", (4, 4))
    made.task_dict = {"t": {"test": [{"images": [picture]}, {"images": [picture, picture]}, {"images": []}]}}
    return made


def request(*args: Any) -> SimpleNamespace:
    return SimpleNamespace(args=args)


def visuals(doc: dict[str, Any]) -> list[Any]:
    return list(doc["images"])


def test_requests_are_answered_in_batches_and_in_order(model: Any) -> None:
    asked = {"max_new_tokens": 8, "until": ["\n\n"]}
    contexts = ["What?", "<image> or <image>?", "Hello"]
    requests = [request(context, asked, visuals, i, "t", "test") for i, context in enumerate(contexts)]
    assert model.generate_until(requests) == ["<image>What? 1 8", "<image> or <image>? 2 8", "Hello 0 8"]
    assert model.generator.batches == [2, 1]


def test_an_answer_s_greatest_length_is_its_own_and_not_its_neighbour_s(model: Any) -> None:
    requests = [request("What?", {"max_new_tokens": n}, visuals, 2, "t", "test") for n in (8, 16, 16)]
    assert [said.split()[2] for said in model.generate_until(requests)] == ["8", "16", "16"]
    assert model.generator.batches == [1, 2]


def test_a_task_of_several_rounds_is_told_what_was_said_and_asks_on(model: Any) -> None:
    """As lmms-eval's simple models are asked: the task gives the next pictures and text, until it says that it ends."""
    told = []

    def ask_on(
        doc: dict[str, Any], *, previous_output: list[str], round_idx: int, previous_round_info: int | None
    ) -> tuple[Any, ...]:
        told.append((len(doc["images"]), round_idx, len(previous_output), previous_round_info))
        last = round_idx == len(doc["images"]) + 1
        if last:
            return None, None, True, previous_output, None
        return [Image.new("L", (4, 4))] * 2, f"Round {round_idx}?", False, previous_output, 10 * round_idx

    asked = {"max_new_tokens": 8, "until": ["\n\n"]}
    answers = model.generate_until_multi_round(
        [request("First?", asked, visuals, ask_on, i, "t", "test") for i in (1, 2, 0)]
    )
    assert answers == [
        ["<image><image>First? 2 8", "<image><image>Round 1? 2 8", "<image><image>Round 2? 2 8"],
        ["First? 0 8"],
        ["<image>First? 1 8", "<image><image>Round 1? 2 8"],
    ]
    assert model.generator.batches == [2, 1, 2, 1]  # three first rounds, two second ones, one third
    assert told == [(2, 1, 1, None), (0, 1, 1, None), (1, 1, 1, None), (2, 2, 2, 10), (1, 2, 2, 10), (2, 3, 3, 20)]


def test_an_argument_that_it_does_not_know_is_refused(model: Any) -> None:
    with pytest.raises(ConfigError, match="owl3 has no argument 'num_frame'"):
        type(model)("folder", num_frame=8, device="cuda:0", load=lambda _: Echo())


def test_a_wish_for_sampling_is_answered_greedily_and_said_once(model: Any, caplog: pytest.LogCaptureFixture) -> None:
    asked = {"do_sample": True, "temperature": 0.7}
    model.generate_until([request("What?", asked, visuals, 2, "t", "test")] * 2)
    assert [record.message for record in caplog.records] == [
        "t/test/2 asks for {'do_sample': True, 'temperature': 0.7}; owl3 answers greedily all the same"
    ]


def test_targets_are_scored_by_their_loss_and_options_of_one_question_share_its_pictures(model: Any) -> None:
    """lmms-eval takes the option of the least value; and a bare pair it would turn into text."""
    asked = [
        request("What?", " red", visuals, 0, "t", "test"),
        request("What?", lambda _: "green", visuals, 0, "t", "test"),
        request("What?", "blue", visuals, 1, "t", "test"),
        request("", "red"),
    ]
    assert [score.text for score in model.loglikelihood(asked)] == [
        (2.0, True),
        (2.0, False),
        (2.0, False),
        (2.0, True),
    ]
    assert model.generator.weighed == [
        ("<image>What?", ("red", "green")),
        ("<image><image>What?", ("blue",)),
        ("", ("red",)),
    ]
    assert model.device == "cpu"  # where lmms-eval's ranks count their requests together


def test_what_is_neither_picture_nor_video_is_named(model: Any) -> None:
    asked = request("What?", {}, lambda _: [{"array": []}], 2, "t", "test")
    with pytest.raises(ConfigError, match="t/test/2: shows a dict; owl3 sees pictures and videos"):
        model.generate_until([asked])


def test_a_batch_size_is_a_number(model: Any) -> None:
    with pytest.raises(ConfigError, match="batch_size 'auto': owl3 takes a number"):
        type(model)("folder", batch_size="auto", load=lambda _: Echo())


def test_results_stand_where_lmms_eval_s_readers_look(tmp_path: Path) -> None:
    summary = {
        "figures": {"f1": 0.8, "accuracy": 0.9, "accuracy_rocks, stones": 0.7},
        "primary": "f1",
        "interval_95": {"low": 0.7, "high": 0.9},
        "task_version": "1",
        "num_questions": 10,
        "num_scored": 9,
        "parsed": {},
        "errors": {"media_missing": 1},
    }
    layout = lmms_results({"pope": summary}, "m", {"batch_size": 4})
    assert layout["results"]["pope"]["f1,none"] == 0.8
    assert layout["results"]["pope"]["f1_stderr,none"] == pytest.approx(0.2 / 2 / 1.96, abs=1e-4)
    assert layout["results"]["pope"]["accuracy_stderr,none"] == "N/A"
    assert layout["results"]["pope"]["accuracy_rocks stones,none"] == 0.7
    assert layout["n-samples"]["pope"] == {"original": 10, "effective": 9}


def test_the_package_registers_itself_by_entry_point(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The manifest that lmms-eval 0.7 asks for names the class that it then imports."""
    models, registry = ModuleType("lmms_eval.models"), ModuleType("lmms_eval.models.registry_v2")
    registry.ModelManifest = SimpleNamespace  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "lmms_eval.models", models)
    monkeypatch.setitem(sys.modules, "lmms_eval.models.registry_v2", registry)
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    place = project["entry-points"]["lmms_eval.models"]["owl3"]
    manifest = EntryPoint("owl3", place, "lmms_eval.models").load()()
    assert manifest.model_id == "owl3"
    module, _, name = manifest.simple_class_path.rpartition(".")
    found = getattr(importlib.import_module(module), name)
    assert (found.__module__, found.__name__) == (type(model).__module__, type(model).__name__)
    assert found.is_simple
