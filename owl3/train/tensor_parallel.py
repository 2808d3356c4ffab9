"""Tensor parallelism of the language model: a few neighbouring ranks share every layer.

    split by rows (a share of the heads or of the MLP's width)     q_proj k_proj v_proj v_kv_proj gate_proj up_proj
    split by columns; the shares' outputs are added up             o_proj down_proj
    split by channel                                               gate of the static fusion
    the same on all, its gradient added up (each sees its heads)   gate_proj.0 of the gated fusion
    the same on all, with the same gradient                        everything else

`v_kv_proj` holds, per key-value head, that head's key and value rows, so a share of its rows is a share of the heads.
SigLIP is computed by every rank of a group: it is frozen in all three stages, and its widths (16 heads of 72) do not
divide like the text model's. The partition is explicit because DeepSpeed's automatic one splits SigLIP's q, k and v
but not its output projection.

Source: Megatron-LM (arXiv:1909.08053); what is split where in hyper layers is ours.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from owl3.errors import ConfigError
from owl3.model.decoder import Owl3DecoderLayer
from owl3.model.hyper_attention import HyperAttention
from owl3.model.modeling import Owl3ForConditionalGeneration
from owl3.train.distributed import World

_SPLIT_ROWS = re.compile(r"\.(self_attn\.(q_proj|k_proj|v_proj|v_kv_proj)|mlp\.(gate_proj|up_proj))\.(weight|bias)$")
_SPLIT_COLUMNS = re.compile(r"\.(self_attn\.o_proj|mlp\.down_proj)\.weight$")
_SPLIT_CHANNELS = re.compile(r"\.self_attn\.gate$")
_SUMMED = re.compile(r"\.self_attn\.gate_proj\.0\.(weight|bias)$")


@dataclass(frozen=True)
class Topology:
    """Which ranks share a model, and which split the data. What DeepSpeed calls an mpu."""

    group: Any  # ranks that share a model: neighbours
    data_group: Any  # ranks that hold the same share of it
    rank: int
    size: int
    data_rank: int
    data_size: int

    def get_model_parallel_rank(self) -> int:
        """DeepSpeed's name for `rank`."""
        return self.rank

    def get_model_parallel_world_size(self) -> int:
        """DeepSpeed's name for `size`."""
        return self.size

    def get_model_parallel_group(self) -> Any:
        """DeepSpeed's name for `group`."""
        return self.group

    def get_data_parallel_rank(self) -> int:
        """DeepSpeed's name for `data_rank`."""
        return self.data_rank

    def get_data_parallel_world_size(self) -> int:
        """DeepSpeed's name for `data_size`."""
        return self.data_size

    def get_data_parallel_group(self) -> Any:
        """DeepSpeed's name for `data_group`."""
        return self.data_group


def make_topology(world: World) -> Topology:
    """Create the groups. All ranks call it, in the same order."""
    size, mine = world.tensor_parallel, world.rank % world.tensor_parallel
    groups = [dist.new_group(list(range(first, first + size))) for first in range(0, world.size, size)]
    data_groups = [dist.new_group(list(range(share, world.size, size))) for share in range(size)]
    return Topology(groups[world.data_rank], data_groups[mine], mine, size, world.data_rank, world.data_size)


class Partition:
    """A model of which this rank holds a share, and the way back to whole tensors."""

    def __init__(self, model: Owl3ForConditionalGeneration, topology: Topology) -> None:
        _check_divisible(model, topology.size)
        self._topology = topology
        self._dims = {name: dim for name, _ in model.named_parameters() if (dim := split_dim(name)) is not None}
        for name, parameter in model.named_parameters():
            if name in self._dims:
                parameter.data = self.share(name, parameter.data).clone()
                parameter.tensor_model_parallel = True  # DeepSpeed adds up its norm over the group
            elif _SUMMED.search(name) and parameter.requires_grad:
                parameter.register_hook(self._add_up)
        for module in model.modules():
            if isinstance(module, Owl3DecoderLayer):
                # What either norm gives, of text or of images, goes into split projections alone.
                module.input_layernorm.register_forward_hook(self._copy_output)
                if isinstance(module.self_attn, HyperAttention) and module.self_attn.image_norm is not None:
                    module.self_attn.image_norm.register_forward_hook(self._copy_output)
                module.post_attention_layernorm.register_forward_hook(self._copy_output)
                module.self_attn.o_proj.register_forward_hook(self._reduce_output)
                module.mlp.down_proj.register_forward_hook(self._reduce_output)

    def share(self, name: str, whole: Tensor) -> Tensor:
        """This rank's part of a whole tensor; the tensor itself where it is not split."""
        dim = self._dims.get(name)
        return whole if dim is None else whole.chunk(self._topology.size, dim)[self._topology.rank].contiguous()

    def whole(self, name: str, share: Tensor) -> Tensor:
        """Put the shares of a group's ranks together again. Collective within the group."""
        dim = self._dims.get(name)
        if dim is None:
            return share
        shares = [torch.empty_like(share) for _ in range(self._topology.size)]
        dist.all_gather(shares, share.contiguous(), group=self._topology.group)
        return torch.cat(shares, dim)

    def _add_up(self, gradient: Tensor) -> Tensor:
        gradient = gradient.contiguous().clone()
        dist.all_reduce(gradient, group=self._topology.group)
        return gradient

    def _copy_output(self, _module: nn.Module, _arguments: Any, output: Tensor) -> Tensor:
        copied: Tensor = _Copy.apply(output, self._topology.group)
        return copied

    def _reduce_output(self, _module: nn.Module, _arguments: Any, output: Tensor) -> Tensor:
        reduced: Tensor = _Reduce.apply(output, self._topology.group)
        return reduced


def split_dim(name: str) -> int | None:
    """Along which dimension a parameter is split; None for one that every rank holds whole."""
    if not name.startswith("language_model.model.layers."):
        return None
    if _SPLIT_ROWS.search(name) or _SPLIT_CHANNELS.search(name):
        return 0
    return 1 if _SPLIT_COLUMNS.search(name) else None


def _check_divisible(model: Owl3ForConditionalGeneration, size: int) -> None:
    text = model.config.text_config
    for key in ("num_key_value_heads", "num_attention_heads", "intermediate_size"):
        if getattr(text, key) % size:
            raise ConfigError(
                f"tensor_parallel {size} does not divide {key} {getattr(text, key)}; choose one of "
                f"{', '.join(map(str, _divisors(text.num_key_value_heads)))}"
            )


def _divisors(number: int) -> Sequence[int]:
    return [d for d in range(1, number + 1) if number % d == 0]


class _Copy(torch.autograd.Function):
    """The same input to all shares; gradients of the shares are added up."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, group: Any) -> Tensor:
        ctx.group = group
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        gradient = gradients[0].contiguous().clone()
        dist.all_reduce(gradient, group=ctx.group)
        return gradient, None


class _Reduce(torch.autograd.Function):
    """Outputs of the shares are added up; every share gets the whole gradient."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, group: Any) -> Tensor:
        total = value.contiguous().clone()
        dist.all_reduce(total, group=group)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0], None
