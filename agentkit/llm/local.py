"""Models that run in this process: any transformers decoder, by hub id, folder or GGUF file; one is embedded."""

from __future__ import annotations

import functools
import hashlib
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from agentkit.errors import InvalidValue, UnknownName
from agentkit.llm import download
from agentkit.llm.adapters import load_adapter
from agentkit.llm.constrained import SchemaConstraints
from agentkit.llm.engine import Engine
from agentkit.llm.errors import (
    ContextTooLong,
    DamagedModel,
    DownloadFailed,
    ModelError,
    UnknownModel,
    Unsupported,
    paid,
)
from agentkit.llm.hashing import request_hash
from agentkit.llm.jobs import Decoding, GenerateJob, Job, ScoreJob
from agentkit.llm.packed import ATTENTION, Adapter, Net
from agentkit.llm.sampling import generator
from agentkit.types import Completion, Message, Request, Scores, TokenLogprob, Usage

_SCORES_KEPT = 16384


class LocalLLM:
    """A language model in this process. Its answers depend on the request alone: not on other requests that happened
    to be computed with it, nor on what was cached, nor on the number of callers. (``usage.cached_tokens`` and
    ``usage.latency_s`` do.)

    ``model`` is ``"smollm2-135m"`` (the embedded default, fetched on first use), a ``.gguf`` file, a folder or a hub
    id.
    ``device`` is ``"cuda"`` where there is one, else ``"cpu"``; ``dtype`` float32 on a CPU and bfloat16 on a GPU.
    On a CPU there are as many ``workers`` as cores, each computing with ``threads`` = 1 thread; rounding may depend on
    ``threads``, not on ``workers``. ``overflow`` says what becomes of a prompt that is too long: an ``"error"``
    (`ContextTooLong`), or ``"truncate"``, which drops the oldest messages after the system prompt.
    ``prefix_cache_bytes`` bounds what is kept of keys and values of prompts, for prompts that begin alike.
    """

    def __init__(
        self,
        model: str = download.EMBEDDED,
        *,
        device: str | None = None,
        dtype: str | None = None,
        workers: int | None = None,
        threads: int = 1,
        overflow: Literal["error", "truncate"] = "error",
        prefix_cache_bytes: int = 1 << 30,
    ) -> None:
        if overflow not in ("error", "truncate"):
            raise InvalidValue(f"overflow is {overflow!r}; it can be 'error' or 'truncate'")
        self.name = f"local/{model}"
        self.overflow = overflow
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        dtype = dtype or ("float32" if device == "cpu" else "bfloat16")
        if not isinstance(getattr(torch, dtype, None), torch.dtype):
            raise InvalidValue(f"dtype is {dtype!r}; it can be 'float32', 'bfloat16', 'float16' or another of torch's")
        try:
            torch.device(device)
        except RuntimeError as error:
            raise InvalidValue(f"device is {device!r}; it can be 'cpu', 'cuda' or 'cuda:0'") from error
        self._tokenizer, network, digest = _load(model, device, dtype)
        self.identity = f"{self.name}@{digest}/{dtype}"
        on_cpu = device == "cpu"
        max_rows = 128 if on_cpu else 2048
        self._net = Net(network, max_rows)
        self._schemas = SchemaConstraints(self._tokenizer, self._net.vocab_size)
        self._adapters: dict[str, Adapter] = {}
        self._ends = _end_tokens(network, self._tokenizer)
        self._engine = Engine(
            self._net,
            workers=workers or (len(os.sched_getaffinity(0)) if on_cpu else 1),
            threads=threads,
            max_rows=max_rows,
            max_samples=128,
            cache_bytes=prefix_cache_bytes,
        )
        self._scores: OrderedDict[str, Scores] = OrderedDict()
        self._lock = threading.Lock()
        # A budget counts a prompt before the call that reads it: it is rendered once for both.
        self._prompt_ids = functools.lru_cache(maxsize=1024)(lambda messages: self._encode(self._render(messages)))

    @property
    def context(self) -> int:
        """The most tokens that prompt and answer can have together."""
        return self._net.context

    @property
    def adapters(self) -> list[str]:
        """The names that requests can give as ``adapter``."""
        return sorted(self._adapters)

    def load_adapter(self, name: str, folder: str | Path) -> None:
        """Make the LoRA adapter that PEFT saved in ``folder`` available as ``name``, in place of an earlier one.

        Requests in flight keep the one they began with. The base model is not touched.
        """
        self._adapters[name] = load_adapter(self._net, Path(folder))

    def drop_adapter(self, name: str) -> None:
        """Forget the adapter ``name``."""
        if self._adapters.pop(name, None) is None:
            raise UnknownName.among("adapter", name, self._adapters)

    def identity_of(self, request: Request) -> str:
        """What names the weights that answer ``request``."""
        adapter = self._adapter(request)
        return self.identity if adapter is None else f"{self.identity}+{adapter.digest}"

    def _adapter(self, request: Request) -> Adapter | None:
        if request.adapter is None:
            return None
        if request.adapter not in self._adapters:
            raise UnknownName.among("adapter", request.adapter, self._adapters)
        return self._adapters[request.adapter]

    def close(self) -> None:
        """End the worker threads and free the model."""
        self._engine.close()

    def forget(self) -> None:
        """Drop what is kept for later requests: prompts' keys and values, and scores. Results stay the same."""
        self._engine.forget()
        with self._lock:
            self._scores.clear()

    def generate(self, requests: Sequence[Request]) -> list[list[Completion]]:
        """``request.n`` completions for each request. The prompt's tokens are in the usage of the first of them."""
        started = time.perf_counter()
        jobs: list[Job] = [self._generate_job(request) for request in requests]
        try:
            self._engine.run(jobs)
        except ModelError as error:
            latency = time.perf_counter() - started
            done = [self._completions(r, j, latency) for r, j in zip(requests, jobs, strict=True) if _done(j)]
            raise paid(error, [c.usage for completions in done for c in completions]) from error.__cause__
        latency = time.perf_counter() - started
        return [self._completions(r, job, latency) for r, job in zip(requests, jobs, strict=True)]

    def score(self, requests: Sequence[Request]) -> list[Scores]:
        """The log-probabilities of each request's ``choices``, without an end-of-answer token.

        Results are kept: the same request again is a look-up (``usage.cached_tokens`` is then ``prompt_tokens``).
        """
        started = time.perf_counter()
        hashes = [request_hash(self.identity_of(request), request, "score") for request in requests]
        known = {key: found for key in hashes if (found := self._kept(key)) is not None}
        fresh = {key: request for key, request in zip(hashes, requests, strict=True) if key not in known}
        jobs = {key: self._score_job(request) for key, request in fresh.items()}
        failure = None
        try:
            self._engine.run(list(jobs.values()))
        except ModelError as error:
            failure = error
        latency = time.perf_counter() - started
        fresh_scores = {key: self._scored(job, key, latency) for key, job in jobs.items() if _done(job)}
        with self._lock:
            for key, scores in fresh_scores.items():
                free = replace(scores.usage, cached_tokens=scores.usage.prompt_tokens, latency_s=0.0)
                self._scores[key] = replace(scores, usage=free)
                while len(self._scores) > _SCORES_KEPT:
                    self._scores.popitem(last=False)
        known |= fresh_scores
        if failure is not None:
            raise paid(failure, [known[key].usage for key in hashes if key in known]) from failure.__cause__
        return [known[key] for key in hashes]

    def count_tokens(self, messages: Sequence[Message]) -> int:
        """The tokens of a prompt made of ``messages``, the chat template's included."""
        return len(self._prompt_ids(tuple(messages)))

    def _kept(self, key: str) -> Scores | None:
        with self._lock:
            found = self._scores.get(key)
            if found is not None:
                self._scores.move_to_end(key)
            return found

    def _score_job(self, request: Request) -> ScoreJob:
        if not request.choices:
            raise InvalidValue("score needs a request with choices")
        candidates = [self._encode(choice) for choice in request.choices]
        for choice, tokens in zip(request.choices, candidates, strict=True):
            if not tokens:
                raise InvalidValue(f"a choice has no tokens: {choice!r}")
        prompt = self._prompt(request, max(len(tokens) for tokens in candidates))
        return ScoreJob(prompt, candidates, self._adapter(request))

    def _scored(self, job: ScoreJob, key: str, latency: float) -> Scores:
        lengths = tuple(len(tokens) for tokens in job.candidates)
        usage = Usage(len(job.prompt) + sum(lengths), job.cached_tokens, 0, 0.0, latency, 1)
        return Scores(tuple(job.logprobs), lengths, usage, key)

    def _generate_job(self, request: Request) -> Job:
        if request.n < 1 or request.max_tokens < 1 or request.temperature < 0 or not 0 < request.top_p <= 1:
            raise InvalidValue(f"n and max_tokens are at least 1, temperature at least 0, top_p in (0, 1]: {request}")
        if request.choices is not None:
            if request.schema is not None:
                raise InvalidValue("a request can have choices or a schema, not both")
            return self._score_job(request)
        prompt = self._prompt(request, request.max_tokens)
        grammar = None if request.schema is None else self._schemas.check(request.schema)
        decoding = Decoding(
            n=request.n,
            temperature=request.temperature,
            top_p=request.top_p,
            max_tokens=min(request.max_tokens, self.context - len(prompt)),
            seed=request.seed,
            ends=self._ends,
            stopped=(lambda ids: self._cut(ids, request.stop) is not None) if request.stop else None,
            constraint=None if grammar is None else lambda: self._schemas.make(grammar),
        )
        return GenerateJob(prompt, decoding, self._adapter(request))

    def _completions(self, request: Request, job: Job, latency: float) -> list[Completion]:
        key = request_hash(self.identity_of(request), request)
        if isinstance(job, ScoreJob):
            return self._chosen(request, job, key, latency)
        assert isinstance(job, GenerateJob)
        completions = []
        for index, sample in enumerate(job.samples):
            ids = [p.token for p in sample.picks]
            text = self._cut(ids, request.stop)
            if text is None:
                text = self._decode(ids)
            usage = Usage(completion_tokens=len(ids))
            if index == 0:
                usage = Usage(len(job.prompt), job.cached_tokens, len(ids), 0.0, latency, 1)
            logprobs = None
            if request.logprobs:
                logprobs = tuple(TokenLogprob(self._tokenizer.decode([p.token]), p.logprob) for p in sample.picks)
            completions.append(Completion(text, sample.finish_reason, usage, logprobs, key))
        return completions

    def _chosen(self, request: Request, job: ScoreJob, key: str, latency: float) -> list[Completion]:
        """A draw from the choices, each with a weight of its probability to the power 1 / temperature."""
        assert request.choices is not None
        logprobs = np.array(job.logprobs)
        completions = []
        for index in range(request.n):
            if request.temperature == 0:
                choice = int(logprobs.argmax())
            else:
                weights = np.exp((logprobs - logprobs.max()) / request.temperature)
                total = np.cumsum(weights)
                draw = generator(request.seed, index).random() * total[-1]
                choice = min(int(np.searchsorted(total, draw, side="right")), len(weights) - 1)
            tokens = len(job.candidates[choice])
            usage = Usage(completion_tokens=tokens)
            if index == 0:
                prompt = len(job.prompt) + sum(map(len, job.candidates))
                usage = Usage(prompt, job.cached_tokens, tokens, 0.0, latency, 1)
            text = request.choices[choice]
            shown = (TokenLogprob(text, float(logprobs[choice])),) if request.logprobs else None
            completions.append(Completion(text, "stop", usage, shown, key))
        return completions

    def _prompt(self, request: Request, wanted: int) -> list[int]:
        """The tokens of the prompt, cut to leave ``wanted`` for the answer where the policy is to truncate."""
        messages = list(request.messages)
        if not messages:
            raise InvalidValue("a request needs at least one message")
        ids = self._prompt_ids(request.messages)
        if self.overflow == "truncate":
            first = 1 if messages[0].role == "system" else 0
            while len(ids) + wanted > self.context and len(messages) > first + 1:
                del messages[first]
                ids = self._encode(self._render(messages))
        if len(ids) + 1 > self.context:
            raise ContextTooLong.of(self.name, len(ids), self.context)
        return ids

    def _render(self, messages: Sequence[Message]) -> str:
        chat = [{"role": m.role, "content": m.content} for m in messages]
        if self._tokenizer.chat_template is None:
            return "".join(f"{m.role}: {m.content}\n" for m in messages) + "assistant:"
        # A last message of the assistant is the beginning of the answer.
        goes_on = messages[-1].role == "assistant"
        try:
            text: str = self._tokenizer.apply_chat_template(
                chat, tokenize=False, add_generation_prompt=not goes_on, continue_final_message=goes_on
            )
        except Exception as error:  # a template is a program of the model's authors: it raises what it likes
            raise Unsupported(f"the chat template of {self.name} refuses these messages: {error}") from error
        return text

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def _decode(self, ids: Sequence[int]) -> str:
        text: str = self._tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text

    def _cut(self, ids: Sequence[int], stop: Sequence[str]) -> str | None:
        """The text before the first stop string, or None where there is none."""
        if not stop:
            return None
        text = self._decode(ids)
        ends = [at for s in stop if (at := text.find(s)) >= 0]
        return text[: min(ends)] if ends else None


def _done(job: Job) -> bool:
    """Whether a job has ended, and well."""
    return job.future.done() and job.future.exception() is None


def _end_tokens(network: Any, tokenizer: Any) -> frozenset[int]:
    ends = network.generation_config.eos_token_id
    found = set(ends if isinstance(ends, list) else [] if ends is None else [ends])
    if tokenizer.eos_token_id is not None:
        found.add(tokenizer.eos_token_id)
    return frozenset(found)


def _load(model: str, device: str, dtype: str) -> tuple[Any, Any, str]:
    """The tokenizer, the network and a digest that changes with the weights."""
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM, AutoTokenizer

    if model == download.EMBEDDED:
        folder = download.embedded_model()
        known = folder == download.embedded_folder()
        source, digest = str(folder), download.GGUF_SHA256[:12] if known else _folder_digest(folder)
    elif model.endswith(".gguf"):
        path = Path(model).expanduser()
        if not path.is_file():
            raise UnknownModel(f"there is no file {path}")
        digest = download.file_sha256(path)[:12]
        source = str(download.converted_gguf(path, digest))
    elif (folder := Path(model).expanduser()).is_dir():
        source, digest = str(folder), _folder_digest(folder)
    elif model.startswith((".", "/", "~")):
        raise UnknownModel(f"there is no folder {model}")
    else:
        source, digest = model, ""
    try:
        tokenizer = AutoTokenizer.from_pretrained(source)
        network = AutoModelForCausalLM.from_pretrained(
            source, dtype=getattr(torch, dtype), attn_implementation=ATTENTION
        )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise _load_error(model, source, error) from error
    network.eval()
    return tokenizer, network.to(device), digest or str(getattr(network.config, "_commit_hash", "") or "hub")[:12]


def _load_error(model: str, source: str, error: Exception) -> ModelError:
    text = " ".join(str(error).split())[:500]
    if Path(source).is_dir():
        return DamagedModel(f"{source} cannot be loaded: {type(error).__name__}: {text}")
    if "not a valid model identifier" in text or "not a local folder" in text:
        return UnknownModel(f"neither a folder nor a model on the hub: {model!r} ({text})")
    return DownloadFailed(f"{model!r} could not be loaded from the hub: {type(error).__name__}: {text}")


def _folder_digest(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.suffix in (".json", ".safetensors", ".bin", ".jinja", ".model") and path.is_file():
            digest.update(f"{path.name}:{download.file_sha256(path)}\n".encode())
    return digest.hexdigest()[:12]
