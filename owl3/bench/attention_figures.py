"""What the attention benchmark says: rows, ratios, tables and a plot."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

MEGABYTE = 1 << 20
COLOURS = {
    "ours": "#0b7a75",
    "concat": "#c1403d",
    "plain": "#8a8d91",
    "bare matmuls": "#d9a441",
    "text": "#b9c4c9",
    "kept": "#7fb8b3",
}


_OURS = ("ours", "kept")


@dataclass
class Row:
    """One number of images: seconds and bytes of each variant.

    `tensor_bytes` also has `kept`, what of ours is still there after the prefill: keys and values for decoding.
    """

    tokens_per_image: int
    num_images: int
    prefill_s: dict[str, float] = field(default_factory=dict)
    peak_bytes: dict[str, int] = field(default_factory=dict)
    tensor_bytes: dict[str, int] = field(default_factory=dict)
    peak_bytes_all_logits: dict[str, int] = field(default_factory=dict)
    decode_s: dict[str, float] = field(default_factory=dict)
    model_flops_utilisation: float | None = None


def ratios(rows: list[Row], training: dict[str, Any]) -> dict[str, Any]:
    """The figures that are promised: ours against each peer."""
    prefill: dict[str, dict[str, float]] = {}
    memory: dict[str, dict[str, float]] = {}
    alive: dict[str, dict[str, float]] = {}
    all_logits: dict[str, float] = {}
    decode: dict[str, dict[str, float]] = {}
    for row in rows:
        name = f"{row.num_images} x {row.tokens_per_image}"
        ours_s, ours_b, step = row.prefill_s["ours"], row.peak_bytes["ours"], row.decode_s
        prefill[name] = {peer: round(s / ours_s, 2) for peer, s in row.prefill_s.items() if peer != "ours"}
        memory[name] = {peer: round(b / max(ours_b, 1), 2) for peer, b in row.peak_bytes.items() if peer != "ours"}
        alive_b = row.tensor_bytes
        alive[name] = {peer: round(b / alive_b["ours"], 2) for peer, b in alive_b.items() if peer not in _OURS}
        alive[name]["concat / kept by ours"] = round(alive_b["concat"] / alive_b["kept"], 2)
        both_b = row.peak_bytes_all_logits
        all_logits[name] = round(both_b["concat"] / max(both_b["ours"], 1), 2)
        decode[name] = {peer: round(step[peer] / step["ours"], 2) for peer in ("concat", "plain") if peer in step}
        decode[name]["ours against text only"] = round(step["ours"] / step["text"], 2)
    seconds, peak, tensors = training["seconds"], training["peak_bytes"], training["tensor_bytes"]
    return {
        "prefill, peer / ours": prefill,
        "peak memory, peer / ours": memory,
        "peak memory, tensors alive, peer / ours": alive,
        "peak memory with all logits, concat / ours": all_logits,
        "decoding, peer / ours": decode,
        "most images (of those measured) in the memory of concatenation's 8": _most_within(rows, 8),
        "prefill time saved against concatenation, mean %": _mean_saved(rows, "prefill_s"),
        "peak memory saved against concatenation, mean %": _mean_saved(rows, "peak_bytes"),
        "training step, padded / packed": round(seconds["padded"] / seconds["packed"], 2)
        if "padded" in seconds
        else None,
        "training memory, packed / padded": {
            "tensors alive": round(tensors["packed"] / tensors["padded"], 2),
            "resident": round(peak["packed"] / peak["padded"], 2),
        }
        if "padded" in peak
        else None,
        "training loss, packed - one by one": training["losses"]["packed"] - training["losses"]["one by one"],
    }


def _most_within(rows: list[Row], num_images: int) -> dict[str, dict[str, int]]:
    """Per tokens per image: most images, of those measured, whose prefill fits where concatenation has so many."""
    most: dict[str, dict[str, int]] = {}
    for tokens in sorted({row.tokens_per_image for row in rows}):
        own = [row for row in rows if row.tokens_per_image == tokens]
        budget = [row.peak_bytes["concat"] for row in own if row.num_images == num_images]
        if budget:
            fits = [row.num_images for row in own if row.peak_bytes["ours"] <= budget[0]]
            most[f"{tokens} tokens per image"] = {"ours": max(fits, default=0), "concat": num_images}
    return most


def _mean_saved(rows: list[Row], what: str) -> dict[str, float]:
    """Per tokens per image, over all rows with images."""
    saved: dict[str, list[float]] = {}
    for row in rows:
        if row.num_images:
            ours, concat = (getattr(row, what)[name] for name in ("ours", "concat"))
            saved.setdefault(f"{row.tokens_per_image} tokens per image", []).append(1 - ours / concat)
    return {name: round(100 * sum(values) / len(values), 1) for name, values in saved.items()}


def write_tables(result: dict[str, Any], path: Path) -> None:
    """Write the figures as Markdown."""
    lines = [
        "# Hyper attention: what it costs, against what",
        "",
        f"`owl3 bench attention`, {result['machine']}; shapes `{result['shapes']}`, fusion `{result['fusion']}`, "
        f"{result['text_tokens']} text tokens. Milliseconds (CPU time on a CPU) and MB above what was in use. "
        "Only ratios within a row travel to other machines.",
        "",
    ]
    for title, key, scale, unit in (
        ("Prefill", "prefill_s", 1e3, "ms"),
        ("Peak memory of a prefill, resident", "peak_bytes", 1 / MEGABYTE, "MB"),
        ("Peak memory of a prefill, tensors alive; kept by ours for decoding", "tensor_bytes", 1 / MEGABYTE, "MB"),
        ("Decoding, per token", "decode_s", 1e3, "ms"),
    ):
        lines += [f"## {title} ({unit})", "", *_table(result["rows"], key, scale), ""]
    training = result["training"]
    lines += ["## Training step, mixed batch (lengths 64, 128, 256, 512; images 0, 8, 1, 0)", ""]
    lines += ["| variant | s | peak MB: tensors alive | resident | loss |", "| --- | --: | --: | --: | --: |"]
    lines += [
        f"| {name} | {training['seconds'][name]:.2f} | {training['tensor_bytes'][name] / MEGABYTE:.0f} "
        f"| {training['peak_bytes'][name] / MEGABYTE:.0f} "
        f"| {training['losses'][name]:.6f} |"
        for name in training["seconds"]
    ]
    lines += ["", "## Ratios", ""]
    for name, value in result["ratios"].items():
        if isinstance(value, dict):
            lines.append(f"* {name}:")
            for images, each in value.items():
                told = ", ".join(f"{p} {r}" for p, r in each.items()) if isinstance(each, dict) else each
                lines.append(f"  * {images}: {told}")
        else:
            lines.append(f"* {name}: {value}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _table(rows: list[dict[str, Any]], key: str, scale: float) -> list[str]:
    names = sorted({name for row in rows for name in row[key]}, key=list(COLOURS).index)
    lines = [f"| tokens per image | images | {' | '.join(names)} |", f"| --: | --: |{' --: |' * len(names)}"]
    for row in rows:
        values = [f"{row[key][name] * scale:.1f}" if name in row[key] else "" for name in names]
        lines.append(f"| {row['tokens_per_image']} | {row['num_images']} | {' | '.join(values)} |")
    return lines


def plot(result: dict[str, Any], path: Path) -> None:
    """Draw prefill time, peak memory and decoding time over the number of visual tokens."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 4), layout="constrained")
    panels = [
        ("prefill", "prefill_s", 1e3, "ms"),
        ("peak memory, tensors alive", "tensor_bytes", 1 / MEGABYTE, "MB"),
        ("decoding, per token", "decode_s", 1e3, "ms"),
    ]
    for axes, (title, key, scale, unit) in zip(figure.subplots(1, 3), panels, strict=True):
        for name, colour in COLOURS.items():
            points = sorted(
                (row["num_images"] * row["tokens_per_image"], row[key][name] * scale)
                for row in result["rows"]
                if name in row[key] and row["num_images"]
            )
            if points:
                axes.plot(*zip(*points, strict=True), marker="o", markersize=3, color=colour, label=name)
        axes.set(title=f"{title} ({unit})", xlabel="visual tokens", xscale="log", yscale="log")
        axes.grid(alpha=0.3)
        axes.legend(frameon=False, fontsize=8)
    figure.suptitle(f"{result['machine']}: shapes {result['shapes']}, fusion {result['fusion']}", fontsize=9)
    figure.savefig(path, dpi=110)
