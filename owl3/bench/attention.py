"""Hyper attention against what it replaces: prefill, memory, decoding, and a training step on a mixed batch.

The language model alone is measured: image tokens are given, since the vision model and the projector cost every
variant the same. All figures of a row come from one process, interleaved; only their ratios mean anything elsewhere.

    python -m owl3.bench attention --out FOLDER [quick=true] [shapes=small|7b] [fusion=gated|static_gate|joint]
"""

import json
import platform
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from owl3.bench.attention_figures import Row, plot, ratios, write_tables
from owl3.bench.baselines import Concatenation, PlainTwoSoftmax, bare_matmuls
from owl3.bench.meter import interleaved, peak_bytes, peak_tensor_bytes
from owl3.errors import ConfigError
from owl3.model.cache import Owl3Cache
from owl3.model.config import Fusion, Owl3Config
from owl3.model.modeling import Owl3ForConditionalGeneration

NUM_TEXT = 256
MIXED_LENGTHS, MIXED_IMAGES = (64, 128, 256, 512), (0, 8, 1, 0)

# Hidden, MLP, layers, heads, key-value heads, vocabulary and hyper layers. `small` is the shape of the baselines
# measured on two cores; `7b` is Qwen2-7B's.
SHAPES = {
    "small": (256, 1344, 12, 8, 4, 8192, (1, 4, 7, 10)),
    "7b": (3584, 18944, 28, 28, 4, 151851, (1, 9, 17, 25)),
}
PEAK_FLOPS = {"H100": 989e12, "H200": 989e12, "A100": 312e12, "L40S": 362e12}
"""Dense bf16 of a card, by a part of its name (data sheets)."""


def run(
    out: Path, *, quick: bool = False, shapes: str = "small", fusion: Fusion = "gated", largest: int | None = None
) -> dict[str, Any]:
    """Measure, and write `attention.json`, `attention.md` and `attention.png` into `out`.

    Args:
        quick: At most 4 images, one round: does it run, not what does it cost.
        shapes: A key of `SHAPES`.
        fusion: Of our model; the plain two-softmax model is left out for `joint`.
        largest: Leave out rows with more images.

    Raises:
        ConfigError: for unknown shapes.
    """
    if shapes not in SHAPES:
        raise ConfigError(f"shapes={shapes}: one of {', '.join(SHAPES)}")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cpu":
        torch.set_num_threads(1)
    torch.manual_seed(0)
    counts = {169: (0, 1, 2, 4, 8, 16, 32, 64), 729: (1, 2, 4, 8, 16)}
    limit = largest if largest is not None else (4 if quick else 64)
    rows = []
    for tokens_per_image, each in counts.items():
        bench = _Bench(shapes, fusion, tokens_per_image, device, rounds=1 if quick else 3)
        rows += [bench.row(count) for count in each if count <= limit]
        if tokens_per_image == 169:
            training = bench.training()
        del bench
    result = {
        "machine": _machine(device),
        "shapes": shapes,
        "fusion": fusion,
        "text_tokens": NUM_TEXT,
        "rows": [asdict(row) for row in rows],
        "training": training,
        "ratios": ratios(rows, training),
    }
    (out / "attention.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    write_tables(result, out / "attention.md")
    plot(result, out / "attention.png")
    return result


class _Bench:
    """The variants, for one number of tokens per image."""

    def __init__(self, shapes: str, fusion: Fusion, tokens_per_image: int, device: torch.device, rounds: int) -> None:
        hidden, mlp, layers, heads, kv_heads, vocab, hyper = SHAPES[shapes]
        side = 2 * int(tokens_per_image**0.5)
        self.config = Owl3Config(
            fusion=fusion,
            projector="linear",
            hyper_layers=hyper,
            loss_chunk_size=256,
            text_config={
                "vocab_size": vocab,
                "hidden_size": hidden,
                "intermediate_size": mlp,
                "num_hidden_layers": layers,
                "num_attention_heads": heads,
                "num_key_value_heads": kv_heads,
                "max_position_embeddings": 65536,
                "rope_parameters": {"rope_type": "default", "rope_theta": 1e6},
            },
            vision_config={
                "hidden_size": 8,
                "intermediate_size": 8,
                "num_hidden_layers": 1,
                "num_attention_heads": 1,
                "image_size": side,
                "patch_size": 2,
            },
        )
        dtype = torch.float32 if device.type == "cpu" else torch.bfloat16
        with device:
            self.model = Owl3ForConditionalGeneration._from_config(self.config, dtype=dtype).eval()
        self.concat = Concatenation(self.model)
        self.plain = None if fusion == "joint" else PlainTwoSoftmax(self.model)
        self.length, self.device, self.rounds, self.side = tokens_per_image, device, rounds, side
        self.features: Tensor
        # Image tokens are given: the pixels only say which image is meant.
        self.model.encode_images = self._encode

    def _encode(self, pixels: Tensor) -> Tensor:
        """The given tokens of these images; if it is all of them, as they lie: the other variants copy none either."""
        which = pixels[:, 0, 0, 0].long()
        if torch.equal(which, torch.arange(len(self.features))):
            return self.features
        return self.features[which.to(self.device)]

    def _given(self, num_images: int) -> dict[str, Tensor]:
        """Arguments of one row of text with images spread over its first three quarters."""
        self.features = torch.randn(num_images, self.length, self.config.text_config.hidden_size).to(
            self.device, self.model.dtype
        )
        given = {"input_ids": torch.randint(self.config.text_config.vocab_size, (1, NUM_TEXT), device=self.device)}
        if num_images:
            starts = torch.arange(num_images) * (NUM_TEXT * 3 // 4) // num_images
            given |= {
                "pixel_values": self._pixels(range(num_images)),
                "image_rows": torch.zeros_like(starts),
                "image_starts": starts,
            }
        return given

    def _pixels(self, images: range) -> Tensor:
        return torch.tensor(list(images), dtype=torch.float32).view(-1, 1, 1, 1).expand(-1, 3, self.side, self.side)

    @torch.no_grad()
    def row(self, num_images: int) -> Row:
        """Prefill, memory and decoding with `num_images` images."""
        row = Row(self.length, num_images)
        given, none = self._given(num_images), torch.zeros(0, dtype=torch.long, device=self.device)
        ids, starts = given["input_ids"], given.get("image_starts", none).to(self.device)
        where, mask = torch.zeros_like(starts), torch.ones_like(ids)
        variants: dict[str, Any] = {
            "ours": lambda: self.model(**given, use_cache=True, logits_to_keep=1),
            "concat": lambda: self.concat.prefill(ids, self.features, starts),
        }
        if self.plain is not None:
            variants["plain"] = lambda: self._plain_prefill(ids, mask, where, starts)
        if self.device.type == "cpu":
            variants["bare matmuls"] = bare_matmuls(self.config, NUM_TEXT, num_images, self.length)
        once = NUM_TEXT + num_images * self.length > 6000 and self.device.type == "cpu"  # up to half a minute
        row.prefill_s = interleaved({"concat": variants["concat"]}, 1, self.device) if once else {}
        few = {name: work for name, work in variants.items() if name not in row.prefill_s}
        row.prefill_s |= interleaved(few, self.rounds, self.device)
        models = {name: work for name, work in variants.items() if name != "bare matmuls"}
        row.peak_bytes = {name: peak_bytes(work, self.device) for name, work in models.items()}
        row.tensor_bytes = {name: peak_tensor_bytes(work, self.device) for name, work in models.items()}
        row.tensor_bytes["kept"] = _cache_bytes(variants["ours"]().past_key_values)
        every = {
            "ours": lambda: self.model(**given, use_cache=True),
            "concat": lambda: self.concat.prefill(ids, self.features, starts, all_logits=True),
        }
        row.peak_bytes_all_logits = {name: peak_bytes(work, self.device) for name, work in every.items()}
        row.decode_s = self._decode(given, ids, mask, where, starts)
        if self.device.type == "cuda":
            row.model_flops_utilisation = self._utilisation(num_images, row.prefill_s["ours"])
        return row

    def _plain_prefill(self, ids: Tensor, mask: Tensor, where: Tensor, starts: Tensor) -> DynamicCache:
        assert self.plain is not None
        cache = DynamicCache(config=self.config.text_config)
        hidden = self.plain.forward(ids, mask, self.features, where, starts, cache)
        self.model.language_model.lm_head(hidden[:, -1:])
        return cache

    def _decode(
        self, given: dict[str, Tensor], ids: Tensor, mask: Tensor, where: Tensor, starts: Tensor
    ) -> dict[str, float]:
        """Seconds per new token, after the same prefill; `text` is ours without images."""
        token = ids[:, :1]
        ours = self.model(**given, use_cache=True, logits_to_keep=1).past_key_values
        text = self.model(ids, use_cache=True, logits_to_keep=1).past_key_values
        steps: dict[str, Any] = {
            "ours": lambda: self.model(token, past_key_values=ours, use_cache=True),
            "text": lambda: self.model(token, past_key_values=text, use_cache=True),
        }
        if NUM_TEXT + len(starts) * self.length <= 12000 or self.device.type == "cuda":
            dense = self.concat.prefill(ids, self.features, starts)
            steps["concat"] = lambda: self.concat.step(token, dense)
        if self.plain is not None:
            plain, cache = self.plain, self._plain_prefill(ids, mask, where, starts)

            def step() -> None:
                every = torch.ones(1, cache.get_seq_length() + 1, device=self.device)
                self.model.language_model.lm_head(plain.forward(token, every, self.features, where, starts, cache))

            steps["plain"] = step
        return interleaved(steps, 3 * self.rounds, self.device)

    def training(self) -> dict[str, Any]:
        """Forward and backward over lengths 64-512 with 0-8 images: packed, padded, and one sample at a time."""
        vocab = self.config.text_config.vocab_size
        samples = [torch.randint(vocab, (length,), device=self.device) for length in MIXED_LENGTHS]
        self.features = torch.randn(sum(MIXED_IMAGES), self.length, self.config.text_config.hidden_size).to(
            self.device, self.model.dtype
        )
        every = self.features.requires_grad_()
        starts = [
            [count * length // 12 for count in range(n)] for length, n in zip(MIXED_LENGTHS, MIXED_IMAGES, strict=True)
        ]
        losses: dict[str, float] = {}
        num_trained = sum(MIXED_LENGTHS) - len(MIXED_LENGTHS)

        def finish(name: str, loss: Tensor) -> None:
            losses[name] = float(loss.detach())

        def packed() -> None:
            offsets = [sum(MIXED_LENGTHS[:index]) for index in range(len(samples))]
            at = torch.tensor([o + s for o, own in zip(offsets, starts, strict=True) for s in own])
            row = torch.cat(samples)[None]
            loss = self.model(
                row,
                segment_ids=torch.repeat_interleave(torch.arange(1, 5), torch.tensor(MIXED_LENGTHS))[None],
                pixel_values=self._pixels(range(len(at))),
                image_rows=torch.zeros_like(at),
                image_starts=at,
                labels=row,
                num_items_in_batch=num_trained,
            ).loss
            loss.backward()
            finish("packed", loss)

        def one_by_one() -> None:
            first, total = 0, torch.zeros((), device=self.device)
            for ids, own in zip(samples, starts, strict=True):
                images = {
                    "pixel_values": self._pixels(range(first, first + len(own))),
                    "image_rows": torch.zeros(len(own), dtype=torch.long),
                    "image_starts": torch.tensor(own, dtype=torch.long),
                }
                first += len(own)
                loss = self.model(
                    ids[None], labels=ids[None], num_items_in_batch=num_trained, **images if own else {}
                ).loss
                loss.backward()
                total += loss.detach()
            finish("one by one", total)

        def padded() -> None:
            assert self.plain is not None
            ids = torch.nn.utils.rnn.pad_sequence(samples, batch_first=True)
            mask = (
                torch.arange(ids.shape[1], device=self.device)
                < torch.tensor(MIXED_LENGTHS, device=self.device)[:, None]
            )
            where = torch.repeat_interleave(torch.arange(4), torch.tensor(MIXED_IMAGES)).to(self.device)
            at = torch.tensor([s for own in starts for s in own], device=self.device)
            hidden = self.plain.forward(ids, mask, every, where, at)
            logits = self.model.language_model.lm_head(hidden).float()
            target = ids.masked_fill(~mask, -100)[:, 1:]
            loss = torch.nn.functional.cross_entropy(
                logits[:, :-1].flatten(0, 1), target.flatten(), ignore_index=-100, reduction="sum"
            )
            (loss / num_trained).backward()
            finish("padded", loss / num_trained)

        variants = {"packed": packed, "one by one": one_by_one}
        if self.plain is not None:
            variants["padded"] = padded
        times = interleaved(variants, self.rounds, self.device)
        memory = {name: peak_bytes(work, self.device) for name, work in variants.items()}
        tensors = {name: peak_tensor_bytes(work, self.device) for name, work in variants.items()}
        self.model.zero_grad(set_to_none=True)
        every.grad = None
        return {"seconds": times, "peak_bytes": memory, "tensor_bytes": tensors, "losses": losses}

    def _utilisation(self, num_images: int, prefill_s: float) -> float | None:
        """Model FLOPs of the prefill (causal and unseen halves not counted) over the card's peak."""
        name = torch.cuda.get_device_name(self.device)
        peak = next((flops for part, flops in PEAK_FLOPS.items() if part in name), None)
        if peak is None:
            return None
        text = self.config.text_config
        dense = sum(p.numel() for n, p in self.model.language_model.model.named_parameters() if "embed" not in n)
        visual = sum(p.numel() for n, p in self.model.named_parameters() if "v_kv_proj" in n)
        num_visual = num_images * self.length
        pairs = text.num_hidden_layers * NUM_TEXT**2 / 2 + len(self.config.hyper_layers) * NUM_TEXT * num_visual * 5 / 8
        flops = 2 * ((dense - visual) * NUM_TEXT + visual * num_visual) + 4 * pairs * text.hidden_size
        return flops / prefill_s / peak


def _cache_bytes(cache: Owl3Cache) -> int:
    """Keys and values of text and images: decoding needs them, so no prefill of ours can take less."""
    tensors = [x for layer in cache.layers for x in (layer.keys, layer.values, *(getattr(layer, "visual", None) or ()))]
    return sum(x.nbytes for x in tensors)


def train_mixed_batch(device: torch.device) -> dict[str, Any]:
    """One round of the training step on a mixed batch, at small shapes; see `_Bench.training`."""
    torch.manual_seed(0)
    return _Bench("small", "gated", 169, device, rounds=1).training()


def _machine(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    model = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        platform.processor(),
    )
    return f"{model}, one thread, torch {torch.__version__}"
