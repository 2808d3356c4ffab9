"""Which benchmarks there are. Each module has `run(out: Path, **options) -> dict`, and runs in a process of its own."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Bench:
    """A benchmark: the module that runs it, and what it measures, in a line."""

    module: str
    summary: str
    needs_gpu: bool = False


BENCHES: dict[str, Bench] = {
    "curate": Bench(
        "owl3.bench.curate", "fetching with all guards against img2dataset alone; hashing; near duplicates; memory"
    ),
    "build": Bench("owl3.bench.build", "building samples against copying the same files, memory, drawing"),
    "attention": Bench("owl3.bench.attention", "hyper attention against concatenation and a plain two-softmax model"),
    "eval": Bench("owl3.bench.eval", "answers per second in batches against one by one; options with shared pictures"),
    "loader": Bench("owl3.bench.loader", "loading photos against webdataset, Energon, Streaming and decoding alone"),
    "memory": Bench("owl3.bench.memory", "memory of each stage of the 1B, 2B and 7B models on every rank, from shapes"),
    "card": Bench(
        "owl3.bench.card",
        "one pass of each stage on this GPU at the real shapes: samples/s, MFU, peak memory",
        needs_gpu=True,
    ),
    "train": Bench(
        "owl3.bench.train", "the loop against a bare one, DeepSpeed, data wait, packing, resuming, checkpoints"
    ),
    "ledger": Bench("owl3.bench.ledger", "trace, retraction impact, top domains at scale; audit against sha256 alone"),
    "plan": Bench("owl3.bench.plan", "planning 41 million samples: seconds, memory, bytes per sample"),
}
