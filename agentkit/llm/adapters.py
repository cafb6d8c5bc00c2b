"""LoRA adapters in PEFT's format, applied to the rows of a pass beside the base model, which is never touched.

LoRA: Hu et al. 2021, section 4.1: the layer ``W x`` becomes ``W x + s B A x``; s is ``alpha / r`` (or
``alpha / sqrt(r)`` in rank-stabilised adapters, Kalajdzievski 2023).
"""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from agentkit.llm.download import file_sha256
from agentkit.llm.errors import DamagedModel, UnknownModel, Unsupported
from agentkit.llm.packed import Adapter, FastLinear, Net

_PREFIX = "base_model.model."


def load_adapter(net: Net, folder: Path) -> Adapter:
    """The adapter that PEFT's ``save_pretrained`` wrote to ``folder``, for the model of ``net``.

    Raises `UnknownModel` where there is none, `DamagedModel` where it cannot be read or fits another model, and
    `Unsupported` for what is not plain LoRA on linear layers.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    settings, weights = folder / "adapter_config.json", folder / "adapter_model.safetensors"
    for path in (settings, weights):
        if not path.is_file():
            raise UnknownModel(f"{folder} holds no adapter: there is no {path.name}")
    try:
        config = json.loads(settings.read_text(encoding="utf-8"))
        tensors = load_file(weights)
    except (ValueError, OSError, SafetensorError) as error:
        raise DamagedModel(f"the adapter in {folder} cannot be read: {error}") from error
    _check_plain(config, folder)
    modules = dict(net.model.named_modules())
    layers: dict[nn.Module, tuple[FastLinear, FastLinear]] = {}
    for name, down in tensors.items():
        if not name.endswith(".lora_A.weight"):
            continue
        target = name.removesuffix(".lora_A.weight").removeprefix(_PREFIX)
        module: Any = modules.get(target)
        up: Any = tensors.get(name.replace(".lora_A.", ".lora_B."))
        fits = isinstance(module, FastLinear) and up is not None
        if not fits or down.shape[1] != module.in_features or up.shape[0] != module.out_features:
            raise DamagedModel(f"the adapter in {folder} does not fit the model at {target!r}")
        scale = _scale(config, target, down.shape[0])
        layers[module] = (_linear(down, net), _linear(up.float() * scale, net))
    if 2 * len(layers) != len(tensors):
        raise Unsupported(f"the adapter in {folder} holds more than pairs of LoRA matrices")
    net.admit([layer for pair in layers.values() for layer in pair])
    return Adapter(file_sha256(weights)[:12], layers)


def _check_plain(config: dict[str, Any], folder: Path) -> None:
    kind = config.get("peft_type")
    if kind != "LORA":
        raise Unsupported(f"the adapter in {folder} is of type {kind}; only LORA is supported")
    used = [key for key in ("use_dora", "modules_to_save", "fan_in_fan_out", "lora_bias", "trainable_token_indices")
            if config.get(key)]  # fmt: skip
    if config.get("bias", "none") != "none":
        used.append("bias")
    if used:
        raise Unsupported(f"the adapter in {folder} uses {', '.join(used)}; only plain LoRA is supported")


def _scale(config: dict[str, Any], target: str, rank: int) -> float:
    alpha = config["lora_alpha"]
    for pattern, value in (config.get("alpha_pattern") or {}).items():
        if re.match(rf"(.*\.)?({pattern})$", target):
            alpha = value
    return float(alpha) / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _linear(weight: Tensor, net: Net) -> FastLinear:
    with torch.device("meta"):
        layer = FastLinear(weight.shape[1], weight.shape[0], bias=False)
    layer.weight = nn.Parameter(weight.to(net.device, net.dtype).contiguous(), requires_grad=False)
    return layer
