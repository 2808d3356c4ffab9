"""The table and the plot of the attention benchmark."""

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
