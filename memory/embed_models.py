"""Embedders that run a model: any sentence-embedding model of the Hugging Face hub on this machine, and any embedding
service that litellm knows.

torch, transformers and litellm are imported when the first text is embedded.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from agentkit.address import Address, scrubbed
from agentkit.errors import ContractError, InvalidValue, MissingExtra, ModelError
from agentkit.memory.embed import Vectors

_POOLINGS = ("mean", "cls", "last")
# What sentence-transformers calls them in 1_Pooling/config.json, before and since its version 5.3.
_POOLING_FLAGS = {"pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls", "pooling_mode_lasttoken": "last"}
_POOLING_WORDS = {"mean": "mean", "cls": "cls", "lasttoken": "last"}


class HubEmbedder:
    """A sentence-embedding model of the Hugging Face hub, or of a folder, run by transformers.

    Pooling, the default prompt and the longest text are read from the files that sentence-transformers writes beside a
    model; a bare encoder gets mean pooling. The vectors agree with those of the sentence-transformers library
    to about 1e-6 (the batch a text is in changes its last bits). Weights are read from safetensors only, and no code
    that comes with a model is run.

    ``prefix`` is put before every text instead of the model's default prompt. Needs ``pip install 'agentkit[local]'``.
    """

    def __init__(
        self,
        model: str | os.PathLike[str],
        *,
        revision: str | None = None,
        name: str | None = None,
        max_tokens: int | None = None,
        prefix: str | None = None,
        pooling: str | None = None,
        batch_size: int = 32,
        device: str | None = None,
    ) -> None:
        if pooling is not None and pooling not in _POOLINGS:
            raise InvalidValue(f"pooling is {pooling!r}; known: {', '.join(_POOLINGS)}")
        if batch_size < 1:
            raise InvalidValue(f"batch_size is {batch_size}; it must be at least 1")
        self._model = os.fspath(model)
        self._revision = revision
        self._given_name = name
        self._given_max_tokens = max_tokens
        self._given_prefix = prefix
        self._given_pooling = pooling
        self._batch_size = batch_size
        self._device = device
        self._lock = threading.RLock()  # a fast tokenizer cannot be shared by threads

    @functools.cached_property
    def folder(self) -> Path:
        """Where the files of the model are; downloaded from the hub when ``model`` is not a folder."""
        folder = Path(self._model).expanduser()
        if folder.is_dir():
            return folder
        try:
            from huggingface_hub import snapshot_download
            from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
        except ImportError as error:
            raise MissingExtra.of("huggingface_hub", "local") from error
        fetch: Callable[..., str] = functools.partial(
            snapshot_download,
            self._model,
            revision=self._revision,
            allow_patterns=["*.json", "*.safetensors", "*.txt", "*.model"],
            ignore_patterns=["onnx/*", "openvino/*"],
        )
        try:
            found = fetch()
        except (HFValidationError, HfHubHTTPError, OSError) as error:
            try:
                found = fetch(local_files_only=True)  # the hub is out of reach: what was fetched before will do
            except (HFValidationError, LocalEntryNotFoundError):
                raise ModelError(
                    f"the embedding model {self._model!r} is no folder here, and the hub did not give it: {error}"
                ) from error
        return Path(found)

    @functools.cached_property
    def name(self) -> str:
        """``hub/<model>@<commit>``, or for a folder ``hub/<its name>#<hash of its files>``, and what was overridden."""
        if self._given_name is not None:
            base = self._given_name
        elif Path(self._model).expanduser().is_dir():
            base = f"hub/{self.folder.resolve().name}#{_folder_hash(self.folder)}"
        else:
            base = f"hub/{self._model}@{self.folder.name}"
        changed = {"max_tokens": self._given_max_tokens, "prefix": self._given_prefix, "pooling": self._given_pooling}
        said = [f"{key}={value!r}" for key, value in changed.items() if value is not None]
        return base + (f"({', '.join(said)})" if said else "")

    @functools.cached_property
    def dim(self) -> int:
        config = self._json("config.json")
        size = config.get("hidden_size", config.get("dim", config.get("d_model")))
        if not isinstance(size, int):
            raise ModelError(f"{self.folder / 'config.json'} does not say its hidden_size: this is no text encoder")
        return size

    def embed(self, texts: Sequence[str]) -> Vectors:
        """``(N, D) float32``, unit length. Texts longer than the model reads are cut at their end."""
        out = np.empty((len(texts), self.dim), np.float32)
        # Texts of like length share a batch, so that little of it is padding.
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        with self._lock:
            for start in range(0, len(order), self._batch_size):
                rows = order[start : start + self._batch_size]
                out[rows] = self._embed_batch([self._prefix + texts[i] for i in rows])
        return out

    def _embed_batch(self, texts: list[str]) -> Vectors:
        import torch

        tokenizer, model = self._loaded
        batch = tokenizer(
            texts, padding=True, truncation=True, max_length=self._max_tokens, return_tensors="pt", padding_side="right"
        ).to(model.device)
        with torch.inference_mode():
            hidden = model(**batch).last_hidden_state.float()
            mask = batch["attention_mask"].unsqueeze(-1).to(hidden.dtype)
            if self._pooling == "cls":
                pooled = hidden[:, 0]
            elif self._pooling == "last":
                pooled = hidden[torch.arange(len(texts)), batch["attention_mask"].sum(dim=1) - 1]
            else:
                pooled = (hidden * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1e-9)
            vectors: Vectors = torch.nn.functional.normalize(pooled, dim=1).cpu().numpy()
        return vectors

    @functools.cached_property
    def _loaded(self) -> tuple[Any, Any]:  # transformers is untyped here: it is an extra
        try:
            import torch
            from transformers import AutoModel, AutoTokenizer
        except ImportError as error:
            raise MissingExtra.of("transformers", "local") from error
        self._check_modules()
        device = self._device or ("cuda" if torch.cuda.is_available() else "cpu")
        tokenizer = AutoTokenizer.from_pretrained(self.folder, trust_remote_code=False)
        model = AutoModel.from_pretrained(
            self.folder, trust_remote_code=False, use_safetensors=True, dtype=torch.float32
        )
        return tokenizer, model.to(device).eval()

    def _check_modules(self) -> None:
        """Refuse a model whose vectors would silently be wrong, because it has a part that is not run here."""
        modules = self._json("modules.json", [])
        kinds = [str(module.get("type", "")).rpartition(".")[2] for module in modules]
        other = sorted(set(kinds) - {"Transformer", "Pooling", "Normalize"})
        if other:
            raise ModelError(
                f"{self._model!r} has the part {', '.join(other)}, which only the sentence-transformers library runs; "
                "docs/embedders.md shows how to hand its model in as an embedder"
            )

    @functools.cached_property
    def _pooling(self) -> str:
        if self._given_pooling:
            return self._given_pooling
        paths = [m.get("path", "") for m in self._json("modules.json", []) if str(m.get("type")).endswith(".Pooling")]
        config = self._json(f"{paths[0]}/config.json") if paths else {}
        stated = config.get("pooling_mode")
        modes = [stated] if isinstance(stated, str) else list(stated or [])
        modes = [_POOLING_WORDS.get(mode, mode) for mode in modes]
        modes += [
            _POOLING_FLAGS.get(key, key) for key, on in config.items() if key.startswith("pooling_mode_") and on is True
        ]
        if not modes:
            return "mean"
        if len(modes) > 1 or modes[0] not in _POOLINGS:
            raise ModelError(f"{self._model!r} pools by {', '.join(modes)}; known: {', '.join(_POOLINGS)}, one of them")
        return str(modes[0])

    @functools.cached_property
    def _prefix(self) -> str:
        if self._given_prefix is not None:
            return self._given_prefix
        config = self._json("config_sentence_transformers.json", {})
        chosen = config.get("default_prompt_name")
        return str(config["prompts"][chosen]) if chosen else ""

    @functools.cached_property
    def _max_tokens(self) -> int:
        stated = self._given_max_tokens or self._json("sentence_bert_config.json", {}).get("max_seq_length")
        if stated:
            return int(stated)
        limit = self._json("tokenizer_config.json", {}).get("model_max_length", 512)
        positions = self._json("config.json").get("max_position_embeddings", 512)
        return int(min(limit, positions))

    def _json(self, file: str, default: Any = None) -> Any:  # what a JSON file holds
        path = self.folder / file
        if not path.is_file():
            if default is None:
                raise ModelError(f"{path} is missing: {self._model!r} is not a model that transformers can read")
            return default
        return json.loads(path.read_text(encoding="utf-8"))


def _folder_hash(folder: Path) -> str:
    """Twelve hexadecimal digits of the files that decide what a model computes."""
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.suffix in (".json", ".safetensors", ".txt", ".model")):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0")
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:12]


class LiteLLMEmbedder:
    """An embedding service, called through litellm: ``model`` is its name there, for example
    ``openai/text-embedding-3-small``.

    ``dimensions`` asks the service for shorter vectors, where it can. ``api_base`` and ``api_key`` default to what
    litellm reads from the environment. ``prompt_tokens`` counts what was used so far.
    """

    def __init__(
        self,
        model: str,
        *,
        dimensions: int | None = None,
        api_base: str | None = None,
        api_key: str | None = None,
        batch_size: int = 128,
        retries: int = 3,
        timeout_s: float = 60.0,
    ) -> None:
        if batch_size < 1:
            raise InvalidValue(f"batch_size is {batch_size}; it must be at least 1")
        self._model = model
        self._dimensions = dimensions
        self._batch_size = batch_size
        given = {"dimensions": dimensions, "api_base": api_base, "api_key": api_key}
        self._secrets = [api_key or "", *(Address.of(api_base).secrets if api_base else ())]
        self._options: dict[str, object] = {key: value for key, value in given.items() if value is not None}
        self._options |= {"max_retries": retries, "timeout": timeout_s}
        self._lock = threading.Lock()
        self.prompt_tokens = 0

    @property
    def name(self) -> str:
        return f"litellm/{self._model}" + (f"@{self._dimensions}" if self._dimensions else "")

    @functools.cached_property
    def dim(self) -> int:
        """As given, or learned from the first answer; asking before it costs one call of one word."""
        return self._dimensions or self._call(["dimension"]).shape[1]

    def embed(self, texts: Sequence[str]) -> Vectors:
        """``(N, D) float32``, unit length. Raises `ModelError` when the service fails or answers with nonsense."""
        # Services refuse a text without any character that counts.
        asked = [text if text.strip() else "-" for text in texts]
        parts = [self._call(asked[i : i + self._batch_size]) for i in range(0, len(asked), self._batch_size)]
        if not parts:
            return np.empty((0, self.dim), np.float32)
        self.__dict__.setdefault("dim", parts[0].shape[1])
        for part in parts:
            if part.shape[1] != self.dim:
                raise ContractError(f"{self.name} answered with {part.shape[1]} dimensions, and before with {self.dim}")
        return np.concatenate(parts)

    def _call(self, texts: list[str]) -> Vectors:
        litellm = _litellm()
        try:
            answer = litellm.embedding(model=self._model, input=texts, **self._options)
        except Exception as error:  # litellm's errors share no root with each other, and none with ours
            said = scrubbed(f"{self.name} failed: {type(error).__name__}: {error}", self._secrets)
            raise ModelError(said) from None  # the cause may hold the key
        with self._lock:
            self.prompt_tokens += getattr(answer.usage, "prompt_tokens", 0) or 0
        try:
            items = sorted(answer.data, key=lambda item: item["index"])
            vectors = np.array([item["embedding"] for item in items], np.float32)
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError(f"{self.name} answered with something that is not a list of vectors: {error}") from error
        if vectors.ndim != 2 or len(vectors) != len(texts):
            raise ModelError(f"{self.name} answered {len(texts)} texts with vectors of shape {vectors.shape}")
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        if not (np.isfinite(norms).all() and (norms > 0).all()):
            raise ModelError(f"{self.name} answered with a vector that has no direction (zero or not finite)")
        unit: Vectors = vectors / norms
        return unit


def _litellm() -> Any:  # litellm's stubs are not used: it is imported late
    """litellm, told not to fetch its price list from the network while it is being imported."""
    key = "LITELLM_LOCAL_MODEL_COST_MAP"
    before = os.environ.get(key)
    os.environ[key] = before or "True"
    try:
        import litellm
    finally:
        if before is None:
            del os.environ[key]
    return litellm
