"""One forward pass over the rows of many sequences, such that no row's result depends on the other rows.

A *row* is one token of one sequence. The linear layers see all rows of a pass at once; attention is computed for each
sequence by itself, in pieces whose shapes depend on that sequence alone. What then remains is that a matrix product may
round differently for different row counts. `Net` measures at load time which row counts agree bit for bit on this
machine, and pads every pass to one of them.

Works for every transformers decoder that calls its attention through the library's attention interface.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface

from agentkit.llm.errors import Unsupported

ATTENTION = "agentkit_packed"
# Candidates for the number of rows of a pass, and for the rows among them whose logits are computed (that layer is the
# largest by far, and so is trying it).
ROW_COUNTS = (2, 4, 8, 12, 16, 24, 32, 48, 64, 80, 96, 112, 128, 160, 192, 224, 256, 384, 512, 768, 1024, 1536, 2048)
HEAD_COUNTS = (2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128)
_current = threading.local()


@dataclass(slots=True)
class Attend:
    """A piece of attention: rows ``[row, row + n)`` see the first ``length`` places of ``kv``.

    ``visible`` is a bool (n, length) mask; without one, row i sees all places up to ``length - n + i``.
    """

    row: int
    n: int
    kv: Tensor
    length: int
    visible: Tensor | None = None
    masks: dict[tuple[int, int | None], Tensor | None] = field(default_factory=dict)

    def mask(self, groups: int, window: int | None, like: Tensor) -> Tensor | None:
        """The additive mask (groups * n, length), made once a pass for all layers that share it."""
        key = (groups, window)
        if key not in self.masks:
            self.masks[key] = self._mask(groups, window, like)
        return self.masks[key]

    def _mask(self, groups: int, window: int | None, like: Tensor) -> Tensor | None:
        window = None if window is None or window >= self.length else window
        if self.n == 1 and self.visible is None and window is None:
            return None
        visible = self.visible
        if visible is None:
            visible = torch.ones(self.n, self.length, dtype=torch.bool).tril(self.length - self.n)
        if window is not None:
            # Exact for chains; inside a tree of candidates places are not positions, but no tree is a window long.
            visible = visible & ~torch.ones_like(visible).tril(self.length - self.n - window)
        added = torch.zeros(visible.shape, dtype=like.dtype).masked_fill_(~visible, float("-inf"))
        return added.repeat(groups, 1).to(like.device)[None, None]


@dataclass(frozen=True, eq=False, slots=True)
class Adapter:
    """LoRA weights: for each layer of the base model that has them, the layer to r values and the (scaled) one back.

    ``digest`` changes with the weights.
    """

    digest: str
    layers: dict[nn.Module, tuple[nn.Module, nn.Module]]


@dataclass(slots=True)
class Plan:
    """What one pass computes, with one adapter or none. ``wanted`` are the rows whose logits are asked for."""

    ids: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    # (first row, rows, kv of the sequence, first place in kv)
    writes: list[tuple[int, int, Tensor, int]] = field(default_factory=list)
    attends: list[Attend] = field(default_factory=list)
    wanted: list[int] = field(default_factory=list)
    adapter: Adapter | None = None

    def add(self, ids: Sequence[int], positions: Sequence[int], kv: Tensor, at: int) -> int:
        """Append rows whose keys and values go to ``kv`` from place ``at`` on; returns the first row."""
        row = len(self.ids)
        self.ids += ids
        self.positions += positions
        last = self.writes[-1] if self.writes else None
        if last and last[2] is kv and last[3] + last[1] == at:
            self.writes[-1] = (last[0], last[1] + len(ids), kv, last[3])
        else:
            self.writes.append((row, len(ids), kv, at))
        return row


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,  # noqa: ARG001 -- always None: the plan says who sees whom
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention of the current `Plan`: ``query`` (1, heads, rows, d), ``key`` and ``value`` (1, kv heads, rows, d)."""
    if softcap is not None or s_aux is not None:
        raise Unsupported(f"{type(module).__name__} uses soft-capped scores or attention sinks, which are not built in")
    plan: Plan = _current.plan
    layer: Any = module.layer_idx
    _, heads, rows, depth = query.shape
    kv_heads = key.shape[1]
    groups = heads // kv_heads
    key, value = key[0], value[0]
    for row, n, kv, at in plan.writes:
        kv[layer, 0, :, at : at + n] = key[:, row : row + n]
        kv[layer, 1, :, at : at + n] = value[:, row : row + n]
    output = query.new_zeros(1, rows, kv_heads, groups, depth)
    for piece in plan.attends:
        row, n = piece.row, piece.n
        # The query heads that share a key head are stacked as rows of one attention: no copy of keys is made for them.
        stacked = query[0, :, row : row + n].reshape(1, kv_heads, groups * n, depth)
        seen = piece.kv[layer, :, :, : piece.length]
        mixed = nn.functional.scaled_dot_product_attention(
            stacked, seen[0:1], seen[1:2], attn_mask=piece.mask(groups, sliding_window, query), scale=scaling
        )
        output[0, row : row + n] = mixed.view(kv_heads, groups, n, depth).permute(2, 0, 1, 3)
    return output.view(1, rows, heads, depth), None


AttentionInterface.register(ATTENTION, _attention)


class FastLinear(nn.Linear):  # type: ignore[misc] # torch is not followed
    """A linear layer that adds the LoRA weights of the current `Plan`.

    On a CPU its weight is kept in the order in which oneDNN multiplies: up to four times as fast for few rows, and with
    the same rounding for any number of them.
    """

    packed: Tensor | None = None

    def pack(self) -> None:
        """Copy the weight into oneDNN's order. The plain weight stays (it is mapped from the file)."""
        self.packed = torch.ops.mkldnn._reorder_linear_weight(self.weight.detach(), 64)

    def forward(self, input: Tensor) -> Tensor:
        """(..., in) float32 -> (..., out)."""
        output: Tensor
        if self.packed is None:
            output = nn.functional.linear(input, self.weight, self.bias)
        else:
            output = torch.ops.mkldnn._linear_pointwise(input, self.packed, self.bias, "none", [], "")
        plan: Plan | None = getattr(_current, "plan", None)
        if plan is not None and plan.adapter is not None and self in plan.adapter.layers:
            down, up = plan.adapter.layers[self]
            output += up(down(input))
        return output


class Net:
    """A causal language model that runs `Plan`s of up to ``most_rows`` rows. Calls may come from several threads."""

    def __init__(self, model: Any, most_rows: int) -> None:
        self.model = model
        self.device: torch.device = model.device
        self.dtype: torch.dtype = model.dtype
        self.vocab_size: int = model.get_output_embeddings().weight.shape[0]
        config = model.config.get_text_config()
        self.context: int = config.max_position_embeddings
        self.layers: int = config.num_hidden_layers
        self.kv_heads: int = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        self.head_dim: int = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        if not model._supports_attention_backend:
            raise Unsupported(f"{type(model).__name__} does not call its attention through transformers' interface")
        self._packs = self.device.type == "cpu" and self.dtype == torch.float32 and _packing_works()
        for module in model.modules():
            if type(module) is nn.Linear:
                module.__class__ = FastLinear
                if self._packs:
                    module.pack()
        head = model.get_output_embeddings()
        layers = {m.weight.shape: m for m in model.modules() if isinstance(m, nn.Linear) and m is not head}
        self.row_counts = _agreeing(list(layers.values()), [n for n in ROW_COUNTS if n <= most_rows])
        self.head_counts = _agreeing([head], HEAD_COUNTS)

    def admit(self, layers: Sequence[FastLinear]) -> None:
        """Prepare further layers (an adapter's), and keep to row counts with which these agree too."""
        if self._packs:
            for layer in layers:
                layer.pack()
        self.row_counts = _agreeing(list({m.weight.shape: m for m in layers}.values()), self.row_counts)

    def buffer(self, places: int) -> Tensor:
        """Room for the keys and values of ``places`` tokens: (layers, 2, kv heads, places, d)."""
        shape = (self.layers, 2, self.kv_heads, places, self.head_dim)
        return torch.empty(shape, dtype=self.dtype, device=self.device)

    def forward(self, plan: Plan) -> Tensor:
        """The logits of the wanted rows, (wanted, vocabulary) float32. Writes the keys and values of all rows."""
        fill = [0] * (_padded(len(plan.ids), self.row_counts) - len(plan.ids))
        ids = torch.tensor([plan.ids + fill], device=self.device)
        positions = torch.tensor([plan.positions + fill], device=self.device)
        n_wanted = len(plan.wanted)
        wanted = plan.wanted + [0] * (_padded(n_wanted, self.head_counts) - n_wanted)
        _current.plan = plan
        try:
            with torch.inference_mode():
                output = self.model(
                    input_ids=ids,
                    position_ids=positions,
                    use_cache=False,
                    logits_to_keep=torch.tensor(wanted, device=self.device),
                )
                logits: Tensor = output.logits[0, :n_wanted].float()
                return logits
        finally:
            _current.plan = None


def _padded(rows: int, counts: Sequence[int]) -> int:
    """The row count to which ``rows`` are padded: the next one that is known to agree with the others."""
    for count in counts:
        if count >= rows:
            return count
    return -(-rows // counts[-1]) * counts[-1]


def _packing_works() -> bool:
    try:
        layer = FastLinear(8, 8, bias=False)
        layer.pack()
        with torch.inference_mode():
            layer(torch.ones(2, 8))
    except (AttributeError, RuntimeError):  # another build of torch, or a CPU that oneDNN does not know
        return False
    return True


def _agreeing(layers: Sequence[nn.Linear], counts: Sequence[int]) -> tuple[int, ...]:
    """Those of ``counts`` for which every layer rounds as it does for the largest one, bit for bit."""
    generator = torch.Generator().manual_seed(0)
    agreeing = list(counts)
    with torch.inference_mode():
        for layer in layers:
            weight = layer.weight
            rows = torch.randn(counts[-1], weight.shape[1], generator=generator).to(weight.device, weight.dtype)
            reference = layer(rows)
            agreeing = [n for n in agreeing if torch.equal(layer(rows[-n:]), reference[-n:])]
    return tuple(agreeing)
