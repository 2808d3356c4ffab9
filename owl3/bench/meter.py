"""Time and memory of a piece of work, as fairly as one machine allows.

On a CPU: CPU seconds of one thread (other work on the machine stretches the wall clock, not these), and the growth of
the process's resident memory at its peak. On a GPU: wall time between synchronisations, and the allocator's peak.
"""

import ctypes
import gc
import itertools
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

Work = Callable[[], object]


def seconds(work: Work, device: torch.device) -> float:
    """How long one call takes."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        started = time.perf_counter()
        work()
        torch.cuda.synchronize(device)
        return time.perf_counter() - started
    started = time.process_time()
    work()
    return time.process_time() - started


def interleaved(variants: Mapping[str, Work], rounds: int, device: torch.device) -> dict[str, float]:
    """Median seconds of each variant, measured A B C A B C … so that all meet the same weather.

    One unmeasured call of each comes first, unless only one round is asked for.
    """
    if rounds > 1:
        for work in variants.values():
            work()
    times: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(rounds):
        for name, work in variants.items():
            times[name].append(seconds(work, device))
    return {name: statistics.median(values) for name, values in times.items()}


def peak_bytes(work: Work, device: torch.device) -> int:
    """How much memory one call takes beyond what is in use before it."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        torch.cuda.synchronize(device)
        return int(torch.cuda.max_memory_allocated(device) - before)
    ctypes.CDLL(None).malloc_trim(0)  # give freed memory back, or it would hide what the call takes
    Path("/proc/self/clear_refs").write_text("5")  # set the peak to what is resident now
    before = _status_bytes("VmRSS")
    work()
    return max(0, _status_bytes("VmHWM") - before)


def peak_tensor_bytes(work: Work, device: torch.device) -> int:
    """How many bytes of new tensors live at once during one call: what a GPU's allocator counts.

    On a CPU resident memory holds more: scratch of the math libraries and pages not given back, some 150 MB of them.
    """
    if device.type == "cuda":
        return peak_bytes(work, device)
    gc.collect()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as told:
        work()
    changes = sorted(
        (event.start_ns(), event.nbytes())
        for event in told.profiler.kineto_results.events()  # `told.events()` leaves out those inside of operators
        if event.name() == "[memory]"
    )
    return max(itertools.accumulate((size for _, size in changes), initial=0))


def _status_bytes(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {field}")
