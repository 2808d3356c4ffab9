"""DeepSpeed behind the engine seam: the only file that imports it.

What is used of it: ZeRO's partitioning of optimizer state (1), gradients (2) and weights (3), its mixed precision and
its gradient reduction. What is not: its scheduler, its data loader, its checkpoints. Those tie a run to a world size,
and under ZeRO-1 its fp32 consolidation leaves frozen weights out; ours holds whole tensors under their names.
"""

import logging
import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from owl3.model.modeling import Owl3ForConditionalGeneration
from owl3.storage import range_lock
from owl3.tools import tools_dir
from owl3.train.distributed import World
from owl3.train.engine import (
    AVERAGE_KEY,
    DTYPES,
    STATE_KEYS,
    StepResult,
    saved_tensors,
    state_key,
    z_loss_arguments,
)
from owl3.train.optim import ParameterGroup, adamw_arguments, full_shape
from owl3.train.stages import StageConfig
from owl3.train.tensor_parallel import Partition, make_topology

logger = logging.getLogger(__name__)

_MASTERS = ("fp32_partitioned_groups_flat", "fp32_groups_flat_partition", "single_partition_of_fp32_groups")
"""What DeepSpeed's optimizers call their partitions of fp32 weights: ZeRO-3, ZeRO-1 in bf16, ZeRO-1 and 2."""

_SCALER = ("cur_scale", "cur_iter", "last_overflow_iter")
_SCALER_KEY = "loss_scaler"
"""What fp16's dynamic loss scale depends on: a tensor of three numbers in a checkpoint's state."""


def prepare_compilation() -> None:
    """Let DeepSpeed find the op that it compiles at its first start (45 s) where set-up has put it, and ninja."""
    os.environ.setdefault("TORCH_EXTENSIONS_DIR", str(_own_operations()))
    scripts = str(Path(sys.prefix) / "bin")  # an environment that is called by path, not activated, is not on PATH
    if scripts not in os.environ.get("PATH", "").split(os.pathsep):
        os.environ["PATH"] = os.pathsep.join([scripts, os.environ.get("PATH", "")])


def compile_operations() -> None:
    """Compile now what DeepSpeed would compile at its first start on this machine; a no-op when it is there."""
    _import_deepspeed(torch.device("cuda" if torch.cuda.is_available() else "cpu"))


def _own_operations() -> Path:
    return tools_dir() / "torch-extensions"


def _load_communication() -> None:
    """Load the op through which ranks without a GPU talk; compile it where it is not yet there.

    torch guards the folder of an op by a file, waits silently while it is there, and leaves it behind when it is
    killed: then no training would ever start again. So a lock comes first that ends with its holder; whoever has it
    knows that a file in our own folder is a dead process's. DeepSpeed then finds the op loaded.
    """
    import deepspeed
    from deepspeed.ops.op_builder.cpu import ShareMemCommBuilder

    builder = ShareMemCommBuilder()
    if not deepspeed.ops.__compatible_ops__.get(builder.NAME, False):
        return  # DeepSpeed then goes through torch
    folder = Path(os.environ["TORCH_EXTENSIONS_DIR"])
    with range_lock(folder / ".loading", 0, 1):
        if folder == _own_operations():
            (folder / builder.name / "lock").unlink(missing_ok=True)
        builder.load(verbose=False)


class DeepSpeedEngine:
    """See `owl3.train.engine.Engine`."""

    def __init__(
        self,
        model: Owl3ForConditionalGeneration,
        groups: Sequence[ParameterGroup],
        stage: StageConfig,
        world: World,
        options: Mapping[str, Any],
    ) -> None:
        deepspeed = _import_deepspeed(world.device)
        topology = make_topology(world) if world.tensor_parallel > 1 else None
        self._partition = Partition(model, topology) if topology is not None else None
        self.dtype = DTYPES[stage.precision]
        self._groups = groups
        self._stage = stage
        self._world = world
        # Casting the module to half would round rotary frequencies, and with them every angle: they stay as they are.
        exact_buffers = {n: b.clone() for n, b in model.named_buffers() if b.is_floating_point()}
        optimizer = torch.optim.AdamW(adamw_arguments(groups, stage.optimizer), fused=world.device.type == "cuda")
        with _told_only_if_it_fails():
            self._engine, self._zero, _, _ = deepspeed.initialize(
                model=model,
                optimizer=optimizer,
                config=_config(stage, options, sum(math.prod(full_shape(p)) for g in groups for p in g.parameters)),
                dist_init_required=False,
                mpu=topology,
            )
        self.model = self._engine.module
        for name, buffer in exact_buffers.items():
            parent, _, leaf = name.rpartition(".")
            self.model.get_submodule(parent)._buffers[leaf] = buffer.to(world.device)
        self._prepare_state()
        self._scaler = self._zero.loss_scaler if stage.precision == "fp16" else None
        if self._scaler is not None:
            self._scaler.raise_error_at_min_scale = False  # the loop ends with the samples' names
        # The average lies where the master weights lie: each rank averages its own partition.
        self._averages = [flat.detach().clone() for flat in self._master_partitions()] if stage.ema_decay else []

    def forward(self, inputs: Mapping[str, Tensor], trained_tokens: int, *, last: bool) -> Tensor:
        """See `Engine`."""
        self._engine.set_gradient_accumulation_boundary(last)
        more = z_loss_arguments(self._stage)
        loss: Tensor = self._engine(**inputs, num_items_in_batch=trained_tokens, **more).loss
        return loss

    @torch.no_grad()
    def evaluate(self, inputs: Mapping[str, Tensor], trained_tokens: int) -> Tensor:
        """See `Engine`."""
        self._engine.eval()
        loss: Tensor = self._engine(**inputs, num_items_in_batch=trained_tokens).loss
        self._engine.train()
        return loss

    def backward(self, loss: Tensor) -> None:
        """See `Engine`."""
        # DeepSpeed averages gradients over data-parallel ranks; shares of the step's loss have to be summed.
        self._engine.backward(loss * self._world.data_size, scale_wrt_gas=False)

    def step(self, rates: Sequence[float]) -> StepResult:
        """See `Engine`."""
        for group, rate in zip(self._zero.param_groups, rates, strict=True):
            group["lr"] = rate
        scale = self._scaler.cur_scale if self._scaler else None
        self._engine.step()
        applied = bool(self._engine.was_step_applied())
        if applied and self._averages:
            masters = self._master_partitions()
            torch._foreach_lerp_(self._averages, masters, 1 - (self._stage.ema_decay or 0))
        again = self._scaler is not None and not applied and self._scaler.cur_scale < scale
        return StepResult(float(self._engine.get_global_grad_norm()), applied, again, scale)

    @torch.no_grad()
    def weights(self, *, averaged: bool = False) -> Iterator[tuple[str, Tensor]]:
        """See `Engine`."""
        import deepspeed

        averages = {id(p): a.to("cpu", p.dtype) for p, a in self._whole_averages()} if averaged else {}

        def value(tensor: Tensor) -> Tensor:
            return averages.get(id(tensor), tensor.detach()).to(self._world.device)

        for name, saved in saved_tensors(self.model).items():
            parameters = [saved.tensor] if isinstance(saved.tensor, nn.Parameter) else []
            with deepspeed.zero.GatheredParameters(parameters):
                yield name, self._whole(name, saved.whole(value)).cpu().clone()

    def state(self) -> Iterator[tuple[str, Tensor]]:
        """See `Engine`."""
        from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_optimizer_state

        for name, parameter in self._named():
            yield state_key(name, "master"), self._whole(name, safe_get_full_fp32_param(parameter)).cpu()
            for key in STATE_KEYS[1:]:
                yield state_key(name, key), self._whole(name, safe_get_full_optimizer_state(parameter, key)).cpu()
        names = {id(parameter): name for name, parameter in self._named()}
        for parameter, average in self._whole_averages():
            name = names[id(parameter)]
            yield state_key(name, AVERAGE_KEY), self._whole(name, average).cpu()
        if self._scaler is not None:
            yield _SCALER_KEY, torch.tensor([getattr(self._scaler, name) for name in _SCALER], dtype=torch.float64)

    @torch.no_grad()
    def load_state(self, read: Callable[[str], Tensor], steps_taken: int) -> None:
        """See `Engine`."""
        from deepspeed.utils import (
            safe_set_full_fp32_param,
            safe_set_full_optimizer_state,
            safe_set_local_fp32_param,
            safe_set_local_optimizer_state,
        )

        def set_master(parameter: nn.Parameter, whole: Tensor) -> None:
            if self._stage.zero_stage == 3:
                # Its setter of whole tensors fails where a tensor does not divide by the number of ranks.
                safe_set_local_fp32_param(parameter, self._local_part(parameter, whole))
            else:
                safe_set_full_fp32_param(parameter, whole)

        if self._averages:
            for name, parameter in self._named():
                set_master(parameter, self._share(name, read(state_key(name, AVERAGE_KEY))))
            for average, flat in zip(self._averages, self._master_partitions(), strict=True):
                average.copy_(flat)
        for name, parameter in self._named():
            master, *moments = (self._share(name, read(state_key(name, key))) for key in STATE_KEYS)
            set_master(parameter, master)
            if self._stage.zero_stage == 3:
                for key, moment in zip(STATE_KEYS[1:], moments, strict=True):
                    safe_set_local_optimizer_state(parameter, self._local_part(parameter, moment), key)
                continue
            parameter.data.copy_(master)  # adapters come from here; all else was loaded with the model
            for key, moment in zip(STATE_KEYS[1:], moments, strict=True):
                safe_set_full_optimizer_state(parameter, moment, key)
        for state in self._zero.optimizer.state.values():
            state["step"].fill_(float(steps_taken))
        if self._scaler is not None:
            scale, *counts = read(_SCALER_KEY).tolist()
            for name, value in zip(_SCALER, (scale, *map(int, counts)), strict=True):
                setattr(self._scaler, name, value)

    def _master_partitions(self) -> list[Tensor]:
        """This rank's partitions of the fp32 weights, one per parameter group."""
        return list(next(getattr(self._zero, name) for name in _MASTERS if hasattr(self._zero, name)))

    @torch.no_grad()
    def _whole_averages(self) -> Iterator[tuple[nn.Parameter, Tensor]]:
        """The averages of what learns, gathered as the weights are: they change places with them meanwhile.

        Collective; nothing where no average is kept. Not to be left half-way.
        """
        from deepspeed.utils import safe_get_full_fp32_param

        def swap() -> None:
            for average, flat in zip(self._averages, self._master_partitions(), strict=True):
                weights = flat.clone()
                flat.copy_(average)
                average.copy_(weights)

        if not self._averages:
            return
        swap()
        for _, parameter in self._named():
            yield parameter, safe_get_full_fp32_param(parameter)
        swap()

    def _whole(self, name: str, tensor: Tensor) -> Tensor:
        """Undo tensor parallelism."""
        return tensor if self._partition is None else self._partition.whole(name, tensor)

    def _share(self, name: str, whole: Tensor) -> Tensor:
        """This rank's share of a tensor under tensor parallelism, on its device."""
        share = whole if self._partition is None else self._partition.share(name, whole)
        return share.to(self._world.device)

    def _local_part(self, parameter: nn.Parameter, whole: Tensor) -> Tensor:
        """This rank's partition under ZeRO-3: equal shares, the last one padded."""
        size = int(parameter.ds_tensor.ds_numel)  # type: ignore[attr-defined]  # ZeRO-3 puts it there
        part = whole.flatten()[self._world.data_rank * size :][:size]
        return torch.nn.functional.pad(part, (0, size - part.numel()))

    def _named(self) -> Iterator[tuple[str, nn.Parameter]]:
        for group in self._groups:
            yield from zip(group.names, group.parameters, strict=True)

    def _prepare_state(self) -> None:
        """Give every partition its AdamW moments now, so that state can be saved and loaded before the first step.

        DeepSpeed 0.19 links parameters to their moments after the first group has stepped, when the other groups have
        none yet: with two or more groups their moments could never be read. Linking after this repairs that too.
        """
        for flat in self._master_partitions():
            self._zero.optimizer.state[flat] = {
                "step": torch.zeros((), dtype=torch.float32, device=flat.device if flat.is_cuda else None),
                "exp_avg": torch.zeros_like(flat),
                "exp_avg_sq": torch.zeros_like(flat),
            }
        if self._stage.zero_stage != 3:
            self._zero._lazy_init_hp_params_optimizer_state()


def _import_deepspeed(device: torch.device) -> Any:
    """Import it quietly: it takes a second, probes compilers, and would guess the accelerator with a warning."""
    prepare_compilation()
    os.environ.setdefault("DS_ACCELERATOR", device.type)
    with redirect_stdout(sys.stderr):
        import deepspeed

        if device.type == "cpu":
            _load_communication()
    deepspeed.utils.logger.setLevel(logging.ERROR)
    return deepspeed


@contextmanager
def _told_only_if_it_fails() -> Iterator[None]:
    """DeepSpeed tells on stdout, which is for results, of its memory, group by group: of use where it can't start."""
    told = StringIO()
    try:
        with redirect_stdout(told):
            yield
    except Exception:
        sys.stderr.write(told.getvalue())
        raise


def _config(stage: StageConfig, options: Mapping[str, Any], trained_parameters: int) -> dict[str, Any]:
    """Join what the recipe says with what the machine wants."""
    # DeepSpeed allocates its buckets whole, at every step: by default 2 GB, be the model ever so small.
    bucket = min(50_000, -(-trained_parameters // 1024)) * 1024  # a multiple of DeepSpeed's alignment
    buckets = {"reduce_bucket_size": bucket, "allgather_bucket_size": bucket}
    return {
        "communication_data_type": "fp32",
        **options,
        # The loop owns accumulation: a step's number of micro-batches follows from its rows, and may differ per step.
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": stage.optimizer.clip_norm,
        "zero_optimization": {**buckets, **options.get("zero_optimization", {}), "stage": stage.zero_stage},
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,  # offloaded state is stepped by the AdamW that is used everywhere
        # Added up in half precision, gradients of 64 micro-batches are off by 0.8 %; in fp32 the sum is exact.
        "data_types": {"grad_accum_dtype": "fp32"},
        # check_grad_overflow: without it DeepSpeed steps on non-finite bf16 gradients.
        # immediate_grad_update: else every gradient is held twice, in bf16 and in fp32.
        "bf16": {"enabled": stage.precision == "bf16", "check_grad_overflow": True, "immediate_grad_update": True},
        # The step's loss is a sum of small shares, so its scale begins high: a step that overflows is computed again.
        "fp16": {"enabled": stage.precision == "fp16", "initial_scale_power": 24, "hysteresis": 1},
        "steps_per_print": None,
    }
