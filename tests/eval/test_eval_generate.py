"""The torch side: a tiny model with random weights, whose answers are nonsense, but always the same nonsense."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from eval_oracle import COLOURS
from PIL import Image
from transformers import PreTrainedTokenizerFast

from owl3.errors import InputError
from owl3.eval.distractor import numbered_prompt
from owl3.eval.evaluate import Ask
from owl3.eval.generate import Generator, question
from owl3.eval.items import Item, Medium
from owl3.eval.media import Shown
from owl3.model.config import Owl3Config
from owl3.model.image_processing import Owl3ImageProcessor
from owl3.model.modeling import Owl3ForConditionalGeneration
from owl3.model.processing import Owl3Processor
from owl3.tokens import END_OF_TEXT, TURN_END, train_tiny

Kind = tuple[str, str]


@pytest.fixture(scope="module", params=["gated", "static_gate", "joint"])
def generator(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Generator:
    """Saved and loaded, as the runner meets it."""
    torch.manual_seed(0)
    tokenizer = train_tiny(["What colour is the shape? red green blue Image In, yes no 1 2 3 4 5 6 7 8"], 400)
    text = {"vocab_size": tokenizer.vocab_size, "hidden_size": 32, "intermediate_size": 48}
    config = Owl3Config.preset("tiny", fusion=request.param, text_config=text, initializer_range=0.2)
    model = Owl3ForConditionalGeneration(config)
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend, eos_token=TURN_END, pad_token=END_OF_TEXT)
    pictures = Owl3ImageProcessor(image_size=config.vision_config.image_size, cut_enable=False)
    release = {"gated": "240728", "static_gate": "241014", "joint": "241101"}[request.param]
    folder = tmp_path_factory.mktemp("model")
    model.save_pretrained(folder)
    Owl3Processor(pictures, wrapped, release=release).save_pretrained(folder)  # type: ignore[arg-type]
    return Generator.load(folder)


def picture(colour: str) -> Image.Image:
    return Image.new("RGB", (20, 16), COLOURS[colour])


@pytest.fixture
def questions() -> list[Shown]:
    """One picture, none, three pictures, a video: everything in one batch."""
    options = tuple(COLOURS)
    single = Item("single", (Medium(Path("a")), "What colour is the shape?"), ("red",), options)
    text = Item("text", ("yes or no?",), ("yes",), ("yes", "no"))
    several = Item("several", numbered_prompt([Medium(Path(n)) for n in "abc"], 2, "What colour?"), ("red",), options)
    video = Item("video", (Medium(Path("v"), num_frames=2), "What colour is the shape?"), ("red",), options)
    return [
        Shown(single, ((picture("red"),),)),
        Shown(text),
        Shown(several, ((picture("red"),), (picture("green"),), (picture("blue"),))),
        Shown(video, ((picture("red"), picture("blue")),)),
    ]


@pytest.mark.parametrize("ask", [Ask(max_new_tokens=6), Ask(choose=True)], ids=["generate", "choose"])
def test_a_batch_answers_as_its_questions_one_by_one(generator: Generator, questions: list[Shown], ask: Ask) -> None:
    together = generator.answer(questions, ask)
    alone = [generator.answer([one], ask)[0] for one in questions]
    backwards = generator.answer(questions[::-1], ask)[::-1]
    assert together == alone == backwards


def test_answers_are_greedy_whatever_lies_beside_the_weights(
    generator: Generator, questions: list[Shown], tmp_path: Path
) -> None:
    """Released checkpoints bring sampling and a repetition penalty, which would punish words of the prompt."""
    generator.model.save_pretrained(tmp_path)
    generator.processor.save_pretrained(tmp_path)
    chatty = {"do_sample": True, "temperature": 0.7, "top_k": 20, "repetition_penalty": 3.0, "max_new_tokens": 2}
    (tmp_path / "generation_config.json").write_text(json.dumps(chatty))
    ask = Ask(max_new_tokens=6)
    assert Generator.load(tmp_path).answer(questions, ask) == generator.answer(questions, ask)


def test_what_is_seen_changes_what_is_said(generator: Generator) -> None:
    item = Item("a", (Medium(Path("a")), "What colour is the shape?"))
    noise = Image.effect_noise((56, 56), 90).convert("RGB")
    scores = [generator.likelihoods(Shown(item, ((seen,),)), ["red", "blue"]) for seen in (picture("red"), noise)]
    assert not torch.allclose(scores[0], scores[1], atol=1e-4)


def test_likelihoods_are_those_of_the_whole_answer_alone(generator: Generator, questions: list[Shown]) -> None:
    """Shared pictures and padded candidates give what each candidate gives by itself."""
    several = questions[2]
    candidates = ["red", "green and blue", "no"]
    together = generator.likelihoods(several, candidates)
    alone = torch.cat([generator.likelihoods(several, [candidate]) for candidate in candidates])
    torch.testing.assert_close(together, alone, atol=2e-4, rtol=1e-5)
    messages: list[Any] = [question(several), {"role": "assistant", "content": candidates[1]}]
    inputs = generator.processor([messages], return_labels=True)
    with torch.inference_mode():
        loss = generator.model(**inputs, num_items_in_batch=1).loss
    torch.testing.assert_close(-loss, alone[1], atol=2e-4, rtol=1e-5)


def test_an_answer_is_greedy_when_each_of_its_tokens_is_the_likeliest(
    generator: Generator, questions: list[Shown], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model that foresees everything but the word "red"."""
    surprise = generator.tokenizer.encode("red")[0]

    class Prophet:
        device = "cpu"

        def __call__(self, *, input_ids: torch.Tensor, logits_to_keep: int, **_: Any) -> SimpleNamespace:
            following = input_ids.roll(-1, dims=1)
            seen = torch.nn.functional.one_hot(following, generator.tokenizer.vocab_size) * 9.0
            seen[..., surprise] = 0.0
            return SimpleNamespace(logits=seen[:, -logits_to_keep:])

    monkeypatch.setattr(generator, "model", Prophet())
    weighed = generator.weigh(questions[2], ["red", "green and blue", "no"])
    assert weighed.is_greedy.tolist() == [False, True, True]
    ends = 2  # of the turn and of the text
    assert (weighed.num_tokens - ends).tolist() == [
        len(generator.tokenizer.encode(words)) for words in ("red", "green and blue", "no")
    ]


def test_letters_are_chosen_where_options_are_lettered(generator: Generator, questions: list[Shown]) -> None:
    letters = generator.answer(questions, Ask(choose=True, letters=True))
    assert all(said in "ABC"[: len(one.item.options)] for said, one in zip(letters, questions, strict=True))


def test_a_batch_that_does_not_fit_is_a_failure_of_this_evaluation_alone(
    generator: Generator, questions: list[Shown], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker notes it and goes on with the queue; a crash would meet the same request again and again."""

    def full(**_: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(generator.model, "generate", full)
    with pytest.raises(InputError, match=r"out of memory with 4 questions about \d+ pictures at once; lower the batch"):
        generator.answer(questions, Ask())


def test_a_folder_that_holds_no_model_says_so(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(InputError, match="can't be loaded"):
        Generator.load(tmp_path)
