"""The seam between the training loop and whatever moves gradients: DeepSpeed in earnest, plain torch in tests.

An engine is handed a model whose trainable parameters are marked. Its `forward` takes one micro-batch and returns this
rank's share of the step's loss, so that shares add up to the same loss however a step is split into ranks and
micro-batches. Everything it saves or loads are whole tensors under the parameters' names: a checkpoint knows nothing
of world size, ZeRO stage or engine.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn

from owl3.errors import ConfigError
from owl3.model.modeling import Owl3ForConditionalGeneration
from owl3.train.distributed import World
from owl3.train.lora import adapter_of, is_adapter, merged, plain_name
from owl3.train.optim import ParameterGroup, adamw_arguments
from owl3.train.stages import Precision, StageConfig

STATE_KEYS = ("master", "exp_avg", "exp_avg_sq")
"""What is kept per trained parameter, all in fp32: the weight itself and AdamW's two moments."""

AVERAGE_KEY = "average"
"""Kept too where a stage has `ema_decay`: the weight's exponential moving average, in fp32."""


DTYPES: dict[Precision, torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
"""What a precision is called in torch."""


@dataclass(frozen=True)
class StepResult:
    """What became of an optimizer step.

    In fp16 the loss is multiplied by a scale, so that small gradients do not vanish. Where they overflow, no weight
    changes, the scale is halved, and the same step is to be computed `again`: so every sample of the plan is learned
    from, and the scale, which is part of an engine's state, costs no step.
    """

    grad_norm: float  # over all ranks, before clipping
    applied: bool  # False when the norm was not finite: no rank changed a weight
    again: bool = False
    loss_scale: float | None = None  # that it was taken with; None: not scaled
    redone: int = 0  # how often it was computed again


class Engine(Protocol):
    """Forward, backward and step of one stage."""

    model: nn.Module
    dtype: torch.dtype  # in which it wants pictures

    def forward(self, inputs: Mapping[str, Tensor], trained_tokens: int, *, last: bool) -> Tensor:
        """Return the sum of this micro-batch's token losses over the *step's* number of trained tokens.

        Args:
            inputs: Keyword arguments of the model, labels among them, on its device.
            trained_tokens: Of the whole step: all ranks, all micro-batches.
            last: Whether this is the rank's last micro-batch of the step; gradients are reduced after it.
        """

    def backward(self, loss: Tensor) -> None:
        """Accumulate gradients of the loss that `forward` returned last."""

    def evaluate(self, inputs: Mapping[str, Tensor], trained_tokens: int) -> Tensor:
        """As `forward`, without dropout, z-loss or anything to go backward through."""

    def step(self, rates: Sequence[float]) -> StepResult:
        """Clip, update and clear gradients, with one learning rate per parameter group; see `take_step`."""

    def weights(self, *, averaged: bool = False) -> Iterator[tuple[str, Tensor]]:
        """Yield the whole model, frozen parts too, tensor by tensor on the CPU. Collective: all ranks must iterate.

        Adapters are merged into their matrices. With `averaged`, moving averages stand in for what learns.
        """

    def state(self) -> Iterator[tuple[str, Tensor]]:
        """Yield `NAME:KEY` and the whole fp32 tensor, on the CPU, for trained parameters. Collective."""

    def load_state(self, read: Callable[[str], Tensor], steps_taken: int) -> None:
        """Continue from saved state: the inverse of `state`, at any world size. Frozen parts hold their weights."""


def state_key(name: str, key: str) -> str:
    """The name of a tensor of optimizer state in a checkpoint."""
    return f"{name}:{key}"


@dataclass(frozen=True)
class SavedTensor:
    """A tensor of a model file, and the adapter that is merged into it: A, B and the scale of their product."""

    tensor: Tensor
    adapter: tuple[Tensor, Tensor, float] | None

    def whole(self, value: Callable[[Tensor], Tensor]) -> Tensor:
        """What the file holds, given a way to look each parameter up."""
        if self.adapter is None:
            return value(self.tensor)
        a, b, scale = self.adapter
        return merged(value(self.tensor), value(a), value(b), scale)


def saved_tensors(model: nn.Module) -> dict[str, SavedTensor]:
    """Return what a model file holds: parameters and persistent buffers, tied ones under their first name only."""
    first_names = {name for name, _ in model.named_parameters()}
    tied = {name for name, _ in model.named_parameters(remove_duplicate=False)} - first_names
    return {
        plain_name(name): SavedTensor(tensor, adapter_of(model, name))
        for name, tensor in model.state_dict(keep_vars=True).items()
        if name not in tied and not is_adapter(name)
    }


class TorchEngine:
    """AdamW on whole fp32 tensors; gradients are summed over ranks in one go. No dependency, no compilation."""

    def __init__(self, model: nn.Module, groups: Sequence[ParameterGroup], stage: StageConfig, world: World) -> None:
        self.model = model.to(world.device, torch.float32)
        self.dtype = torch.float32
        self._groups = groups
        self._stage = stage
        self._world = world
        self._optimizer = torch.optim.AdamW(adamw_arguments(groups, stage.optimizer))
        self._averages = {id(p): p.detach().clone() for p in self._parameters()} if stage.ema_decay else {}
        self._last = False

    def forward(self, inputs: Mapping[str, Tensor], trained_tokens: int, *, last: bool) -> Tensor:
        """See `Engine`."""
        self._last = last
        return self._loss(inputs, trained_tokens, z_loss_arguments(self._stage))

    @torch.no_grad()
    def evaluate(self, inputs: Mapping[str, Tensor], trained_tokens: int) -> Tensor:
        """See `Engine`."""
        self.model.eval()
        loss = self._loss(inputs, trained_tokens, {})
        self.model.train()
        return loss

    def _loss(self, inputs: Mapping[str, Tensor], trained_tokens: int, more: Mapping[str, float]) -> Tensor:
        device_type = self._world.device.type
        with torch.autocast(device_type, torch.bfloat16, enabled=self._stage.precision == "bf16"):
            loss: Tensor = self.model(**inputs, num_items_in_batch=trained_tokens, **more).loss
        return loss

    def backward(self, loss: Tensor) -> None:
        """See `Engine`."""
        torch.autograd.backward(loss)
        if self._last and self._world.size > 1:
            for parameter in self._parameters():
                assert parameter.grad is not None, "every trainable parameter takes part in every forward pass"
                dist.all_reduce(parameter.grad)

    @torch.no_grad()
    def step(self, rates: Sequence[float]) -> StepResult:
        """See `Engine`."""
        gradients = [p.grad for p in self._parameters() if p.grad is not None]
        norm = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(g) for g in gradients]))
        applied = bool(torch.isfinite(norm))
        if applied:
            clip_norm = self._stage.optimizer.clip_norm
            if clip_norm:
                scale = clip_norm / torch.clamp(norm + 1e-6, min=clip_norm)  # as DeepSpeed does it
                torch._foreach_mul_(gradients, scale)
            for group, rate in zip(self._optimizer.param_groups, rates, strict=True):
                group["lr"] = rate
            self._optimizer.step()
            for parameter in self._parameters() if self._averages else ():
                self._averages[id(parameter)].lerp_(parameter, 1 - (self._stage.ema_decay or 0))
        self._optimizer.zero_grad(set_to_none=True)
        return StepResult(float(norm), applied)

    @torch.no_grad()
    def weights(self, *, averaged: bool = False) -> Iterator[tuple[str, Tensor]]:
        """See `Engine`."""
        dtype = DTYPES[self._stage.precision]
        for name, saved in saved_tensors(self.model).items():
            whole = saved.whole(lambda tensor: self._averages.get(id(tensor), tensor) if averaged else tensor)
            yield name, whole.detach().to("cpu", dtype if whole.is_floating_point() else None)

    def state(self) -> Iterator[tuple[str, Tensor]]:
        """See `Engine`."""
        for name, parameter in self._named():
            moments = self._optimizer.state.get(parameter, {})
            yield state_key(name, "master"), parameter.detach().cpu()
            for key in STATE_KEYS[1:]:
                yield state_key(name, key), moments.get(key, torch.zeros_like(parameter)).cpu()
            if self._averages:
                yield state_key(name, AVERAGE_KEY), self._averages[id(parameter)].cpu()

    @torch.no_grad()
    def load_state(self, read: Callable[[str], Tensor], steps_taken: int) -> None:
        """See `Engine`."""
        for name, parameter in self._named():
            parameter.copy_(read(state_key(name, "master")))
            self._optimizer.state[parameter] = {
                "step": torch.tensor(float(steps_taken)),
                **{key: read(state_key(name, key)).to(parameter.device, copy=True) for key in STATE_KEYS[1:]},
            }
            if self._averages:
                self._averages[id(parameter)].copy_(read(state_key(name, AVERAGE_KEY)))

    def _named(self) -> Iterator[tuple[str, nn.Parameter]]:
        for group in self._groups:
            yield from zip(group.names, group.parameters, strict=True)

    def _parameters(self) -> list[nn.Parameter]:
        return [parameter for _, parameter in self._named()]


def take_step(engine: Engine, rates: Sequence[float], recompute: Callable[[], object]) -> StepResult:
    """Let the engine step; gradients that overflow fp16 are computed again at a smaller scale. Collective.

    Args:
        recompute: Goes forward and backward through the whole step once more.
    """
    result, redone = engine.step(rates), 0
    while result.again:
        recompute()
        result, redone = engine.step(rates), redone + 1
    return replace(result, redone=redone)


def check_precision(precision: Precision, device: torch.device) -> None:
    """Refuse what the machine can't compute, or only by emulation.

    Raises:
        ConfigError: naming what it can.
    """
    if device.type == "cpu" and precision == "fp16" and not _cpu_has_fp16():
        raise ConfigError("precision fp16: this machine has no GPU, and its CPU no fp16; set precision: fp32")
    if device.type == "cuda" and precision == "bf16" and torch.cuda.get_device_capability(device) < (8, 0):
        raise ConfigError(f"precision bf16: {torch.cuda.get_device_name(device)} has no bf16; set precision: fp16")


def _cpu_has_fp16() -> bool:
    return bool(torch.ops.mkldnn._is_mkldnn_fp16_supported())


def z_loss_arguments(stage: StageConfig) -> dict[str, float]:
    """What the model's forward is told of z-loss: nothing where it is off."""
    return {"z_loss": stage.z_loss} if stage.z_loss else {}


def make_engine(
    model: Owl3ForConditionalGeneration,
    groups: Sequence[ParameterGroup],
    stage: StageConfig,
    world: World,
    deepspeed_options: Mapping[str, Any],
) -> Engine:
    """Build the engine that the stage names. DeepSpeed is imported only when it is asked for.

    Raises:
        ConfigError: this machine can't compute in the stage's precision.
    """
    check_precision(stage.precision, world.device)
    if stage.engine == "torch":
        return TorchEngine(model, groups, stage, world)
    from owl3.train.deepspeed_engine import DeepSpeedEngine

    return DeepSpeedEngine(model, groups, stage, world, deepspeed_options)
