"""One contestant of `owl3 bench loader`, in a process of its own: `python -m owl3.bench.loader_contest NAME …`.

Prints one JSON list, with an object per number of workers: samples, seconds from the first batch to the last, and CPU
seconds of it with all workers.
"""

import importlib.machinery
import json
import multiprocessing
import os
import resource
import sys
import time
import types
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

SIDE_PX = 384
BATCH = 16

Decode = Callable[[bytes], "np.ndarray[Any, Any]"]


def exact(data: bytes) -> "np.ndarray[Any, Any]":
    """Decode and resize as the released processor does."""
    from owl3.media import open_image
    from owl3.tiling import bicubic

    return np.asarray(bicubic(open_image(data), SIDE_PX, SIDE_PX))


def fast(data: bytes) -> "np.ndarray[Any, Any]":
    """Decode with OpenCV, and resize with torch."""
    from owl3.data.encode import open_fast, resize_fast

    return resize_fast(open_fast(data), SIDE_PX, SIDE_PX)


def memory(workspace: Path, workers: int, decode: Decode = exact) -> Iterable[int]:
    """The limit: bytes in memory, nothing but decoding and resizing, in workers that keep freed memory as ours do."""
    from torch.utils.data import DataLoader

    from owl3.data.worker import start_worker
    from owl3.shards import iter_samples

    tars = sorted(workspace.glob("samples/photos/*.tar"))
    photos = [members["0.jpg"] for tar in tars for _, members in iter_samples(tar)]
    photos_by_number: Any = _Memory(photos, decode)
    loader = DataLoader(
        photos_by_number, batch_size=BATCH, num_workers=workers, collate_fn=_stack, worker_init_fn=start_worker
    )
    return _sizes(loader)


class _Memory:
    """Photos by number, decoded."""

    def __init__(self, photos: list[bytes], decode: Decode) -> None:
        self.photos = photos
        self.decode = decode

    def __len__(self) -> int:
        return len(self.photos)

    def __getitem__(self, number: int) -> "np.ndarray[Any, Any]":
        return self.decode(self.photos[number])


def memory_opencv(workspace: Path, workers: int) -> Iterable[int]:
    """The limit of the fast decoder."""
    return memory(workspace, workers, fast)


def ours(workspace: Path, workers: int, decoder: str = "pillow") -> Iterable[int]:
    """Follow the plan: packed rows with ids, labels, positions and tiles."""
    from owl3.data.loader import StepLoader
    from owl3.tokens import TextTokenizer

    loader = StepLoader(
        workspace / "plans" / "bench" / "short",
        workspace,
        TextTokenizer.load(workspace / "tokenizer"),
        tile_px=SIDE_PX,
        micro_batch_rows=BATCH,
        num_workers=workers,
        decoder=decoder,  # type: ignore[arg-type]  # one of the two that the caller knows
    )
    return (step.num_samples for step in loader)


def ours_opencv(workspace: Path, workers: int) -> Iterable[int]:
    """The same with the fast decoder."""
    return ours(workspace, workers, "opencv")


def webdataset(workspace: Path, workers: int) -> Iterable[int]:
    """The tars front to back, as webdataset reads them."""
    import webdataset as wds

    tars = [str(path) for path in sorted(workspace.glob("samples/photos/*.tar"))]
    photos = wds.WebDataset(tars, shardshuffle=False).map(_decode_member).batched(BATCH, collation_fn=_stack)
    return _sizes(wds.WebLoader(photos, batch_size=None, num_workers=workers))


def _decode_member(sample: dict[str, Any]) -> "np.ndarray[Any, Any]":
    return exact(sample["0.jpg"])


def energon(workspace: Path, workers: int) -> Iterable[int]:
    """The same tars through Megatron-Energon's crude dataset."""
    _look_among_peers()
    from megatron import energon as nv  # type: ignore[import-not-found]

    class Photos(nv.DefaultTaskEncoder):  # type: ignore[misc]
        """Decodes as all others do."""

        decoder = None
        cookers = [nv.Cooker(_cook_for_energon)]  # noqa: RUF012 - as its base class declares it

        def batch(self, samples: list[Any]) -> Any:
            """Stack the pictures."""
            return _stack([sample["photo"] for sample in samples])

    config = nv.WorkerConfig(rank=0, world_size=1, num_workers=workers)
    dataset = nv.get_train_dataset(
        str(workspace / "energon" / "photos"),
        batch_size=BATCH,
        shuffle_buffer_size=None,
        max_samples_per_sequence=None,
        task_encoder=Photos(),
        worker_config=config,
        repeat=False,
    )
    return _sizes(nv.get_loader(dataset))


def _cook_for_energon(sample: dict[str, Any]) -> dict[str, Any]:
    from megatron.energon import basic_sample_keys  # type: ignore[import-not-found]

    return {**basic_sample_keys(sample), "photo": exact(sample["0.jpg"])}


_cook_for_energon.__stateless__ = True  # type: ignore[attr-defined]  # what Energon's own decorator sets


def streaming(workspace: Path, workers: int) -> Iterable[int]:
    """The same photos converted to MosaicML's format."""
    _look_among_peers()
    _pretend_torchvision()
    from streaming import MDSWriter, StreamingDataset  # type: ignore[import-not-found]
    from torch.utils.data import DataLoader

    from owl3.shards import iter_samples

    folder = workspace / "mds"
    if not folder.is_dir():
        with MDSWriter(out=str(folder), columns={"photo": "bytes"}) as writer:
            for tar in sorted(workspace.glob("samples/photos/*.tar")):
                for _, members in iter_samples(tar):
                    writer.write({"photo": members["0.jpg"]})

    class Photos(StreamingDataset):  # type: ignore[misc]
        """Decodes as all others do."""

        def __getitem__(self, at: int) -> Any:
            return exact(super().__getitem__(at)["photo"])

    photos = Photos(local=str(folder), batch_size=BATCH, shuffle=True)
    return _sizes(DataLoader(photos, batch_size=BATCH, num_workers=workers, collate_fn=_stack))


def resume(workspace: Path, step: int) -> float:
    """Seconds from a step number to its batch; imports are done before."""
    from owl3.data.loader import StepLoader
    from owl3.tokens import TextTokenizer

    tokenizer = TextTokenizer.load(workspace / "tokenizer")
    began = time.perf_counter()
    plan = workspace / "plans" / "bench" / "long"
    first = next(iter(StepLoader(plan, workspace, tokenizer, tile_px=SIDE_PX, start_step=step)))
    assert first.index == step
    return time.perf_counter() - began


def _stack(photos: "list[np.ndarray[Any, Any]]") -> Any:
    import torch

    return torch.from_numpy(np.stack(photos))


def _sizes(batches: Iterable[Any]) -> Iterator[int]:
    for batch in batches:
        yield len(batch)


def _look_among_peers() -> None:
    """Let packages of the tool environment `peers` be imported, after all of ours."""
    from owl3 import tools

    sys.path.append(str(tools.packages("peers")))


def _pretend_torchvision() -> None:
    """Streaming imports torchvision for classes that nothing here uses; its CPU build goes with one torch alone."""
    names = ("torchvision", "torchvision.datasets", "torchvision.transforms", "torchvision.transforms.functional")
    for name in names:
        module: Any = types.ModuleType(name)
        module.__spec__, module.__path__ = importlib.machinery.ModuleSpec(name, None), []
        sys.modules[name] = module
    sys.modules["torchvision.datasets"].VisionDataset = object  # type: ignore[attr-defined]
    sys.modules["torchvision.transforms.functional"].to_tensor = None  # type: ignore[attr-defined]


CONTESTANTS: dict[str, Callable[[Path, int], Iterable[int]]] = {
    "memory": memory,
    "memory_opencv": memory_opencv,
    "ours": ours,
    "ours_opencv": ours_opencv,
    "webdataset": webdataset,
    "energon": energon,
    "streaming": streaming,
}


def main(name: str, workspace: Path, workers: int) -> dict[str, float]:
    """Run one contestant once; the clocks start when the first batch is there, so that nobody's start-up counts."""
    batches = iter(CONTESTANTS[name](workspace, workers))
    next(batches)
    cpu_before, began = _cpu_seconds(), time.perf_counter()
    samples = sum(batches)
    seconds = time.perf_counter() - began
    return {"samples": samples, "seconds": seconds, "cpu_seconds": _cpu_seconds() - cpu_before}


def _cpu_seconds() -> float:
    """Of this process, of workers that have ended, and of those that live."""
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    ended = sum(entry.ru_utime + entry.ru_stime for entry in usage)
    return ended + sum(_cpu_seconds_of(child.pid) for child in multiprocessing.active_children() if child.pid)


def _cpu_seconds_of(pid: int) -> float:
    """0 when it has ended meanwhile."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except FileNotFoundError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")  # utime and stime; see proc(5)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    contestant, folder, numbers = sys.argv[1], Path(sys.argv[2]), [int(text) for text in sys.argv[3:]]
    if contestant == "resume":
        found: list[Any] = [round(resume(folder, number), 3) for number in numbers]
    else:
        found = [main(contestant, folder, number) for number in numbers]
    print(json.dumps(found), flush=True)  # noqa: T201 - its parent reads it
