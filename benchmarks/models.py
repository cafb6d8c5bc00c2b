"""How fast models are asked, as ratios against the plain way, measured side by side in one run.

One JSON object a line, as soon as it is known: ``name``, ``ratio`` (above 1: better than the peer), ``spread`` (of the
rounds, as a share of the ratio), ``target``, ``ok`` and what it was compared with. Progress goes to standard error.
Exits with 1 when a target is missed. A part that cannot be measured here is a line that says so, never a pass.

    python benchmarks/models.py [--quick] [--seed N] [--only remote] [--only bulk] ...
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from agentkit.llm import LLM, get_llm
from agentkit.types import Message, Request

MODEL = "local/smollm2-135m"
NOUNS = ("lamp", "door", "table", "garden", "river", "letter", "engine", "bottle", "window", "basket", "mirror", "oar")
STARTED = time.perf_counter()
missed = False


@dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    rounds: int
    episodes: int
    remote_steps: int
    litellm_episodes: int
    litellm_steps: int
    tokens: int
    sentences: int
    scored: int
    steps: tuple[int, int]


FULL = Sizes(
    rounds=3,
    episodes=256,
    remote_steps=30,
    litellm_episodes=256,
    litellm_steps=5,
    tokens=48,
    sentences=4,
    scored=9,
    steps=(12, 30),
)
QUICK = Sizes(
    rounds=1,
    episodes=256,
    remote_steps=12,
    litellm_episodes=128,
    litellm_steps=2,
    tokens=12,
    sentences=1,
    scored=2,
    steps=(5, 12),
)


def report(name: str, ratios: Sequence[float], target: float | None, against: str, **more: Any) -> None:
    """Print one result. Without a target it is a figure, not a check."""
    global missed  # the exit status of the one run that this script is
    ratio = statistics.median(ratios)
    ok = target is None or ratio >= target
    missed |= not ok
    spread = (max(ratios) - min(ratios)) / ratio
    line = {"name": name, "ratio": round(ratio, 3), "spread": round(spread, 3), "target": target, "ok": ok}
    # On a busy machine the peer's threads wait for each other: such a ratio flatters.
    print(json.dumps({**line, "against": against, "load": round(os.getloadavg()[0], 1), **more}), flush=True)


def absent(name: str, why: str) -> None:
    """Print that a part could not be measured: neither a pass nor a miss."""
    print(json.dumps({"name": name, "skipped": why}), flush=True)


def progress(text: str) -> None:
    """Say on standard error what is done now."""
    print(f"{time.perf_counter() - STARTED:6.1f} s  {text}", file=sys.stderr, flush=True)


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds, and the result."""
    started = time.perf_counter()
    result = work()
    return time.perf_counter() - started, result


def versions(*packages: str) -> str:
    """Names and versions."""
    return ", ".join(f"{p} {version(p)}" for p in packages)


def scene(rng: random.Random, sentences: int) -> str:
    """Text that no other prompt shares."""
    return " ".join(f"You see a {rng.choice(NOUNS)} beside the {rng.choice(NOUNS)}." for _ in range(sentences))


class Plain:
    """The same weights in transformers as it comes, with all cores."""

    def __init__(self, device: str, dtype: str) -> None:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        from agentkit.llm.download import embedded_model

        folder = embedded_model()
        if device == "cpu":
            torch.set_num_threads(len(os.sched_getaffinity(0)))
        self.torch, self.device = torch, device
        cores = f", {torch.get_num_threads()} threads" if device == "cpu" else f", {torch.cuda.get_device_name()}"
        self.described = versions("torch", "transformers") + cores
        self.tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype)).to(device).eval()

    def text(self, messages: Sequence[Message]) -> str:
        """The prompt."""
        chat = [{"role": m.role, "content": m.content} for m in messages]
        rendered: str = self.tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        return rendered

    def generate(self, requests: Sequence[Request], tokens: int) -> int:
        """Greedy answers in one padded batch; returns the tokens generated, padding not counted."""
        inputs = self.tokenizer([self.text(r.messages) for r in requests], return_tensors="pt", padding=True)
        inputs = inputs.to(self.device)
        with self.torch.inference_mode():
            out = self.model.generate(**inputs, max_new_tokens=tokens, do_sample=False)
        new = out[:, inputs["input_ids"].shape[1] :]
        end = self.tokenizer.eos_token_id
        return sum(row.tolist().index(end) + 1 if end in row.tolist() else len(row) for row in new)

    def score(self, request: Request) -> list[float]:
        """Each candidate after the whole prompt, as one padded batch."""
        start = self.tokenizer(self.text(request.messages), add_special_tokens=False)["input_ids"]
        ends = [self.tokenizer(c, add_special_tokens=False)["input_ids"] for c in request.choices or ("ok",)]
        longest = max(map(len, ends))
        rows = self.torch.tensor([start + e + [0] * (longest - len(e)) for e in ends], device=self.device)
        with self.torch.inference_mode():
            logits = self.model(rows, logits_to_keep=longest + 1).logits.float()
            logprobs = self.torch.log_softmax(logits, -1)
        return [sum(float(logprobs[i, k, t]) for k, t in enumerate(e)) for i, e in enumerate(ends)]

    def copy_rate(self) -> float:
        """Bytes read and written per second by a plain copy on the card."""
        torch = self.torch
        source = torch.empty(1 << 30, dtype=torch.uint8, device=self.device)
        target = torch.empty_like(source)

        def copies() -> None:
            for _ in range(20):
                target.copy_(source)
            torch.cuda.synchronize()

        copies()
        return 20 * 2 * source.numel() / timed(copies)[0]


class Models:
    """The local backend and its peer, loaded when they are first needed."""

    def __init__(self) -> None:
        self._pair: tuple[Any, Plain] | None = None

    def load(self) -> tuple[Any, Plain]:
        """The two, on the GPU where there is one."""
        if self._pair is None:
            import torch

            progress("loading the local model and its peer")
            device, dtype = ("cuda", "bfloat16") if torch.cuda.is_available() else ("cpu", "float32")
            self._pair = get_llm(MODEL, device=device, dtype=dtype), Plain(device, dtype)
        return self._pair


def in_threads(llm: LLM, requests: Sequence[Request]) -> int:
    """Each request from a thread of its own, as episodes do; returns the tokens generated."""
    tokens = [0] * len(requests)

    def ask(i: int) -> None:
        ((completion,),) = llm.generate([requests[i]])
        tokens[i] = completion.usage.completion_tokens

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(len(requests))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(tokens)


def bulk(models: Models, rng: random.Random, sizes: Sizes) -> None:
    """32 episodes at once against one batch of 32."""
    llm, plain = models.load()

    def asked(tokens: int) -> list[Request]:
        texts = [
            f"Tell a long story. {scene(rng, rng.randint(sizes.sentences, 2 * sizes.sentences))}" for _ in range(32)
        ]
        return [Request((Message("user", text),), temperature=0, max_tokens=tokens) for text in texts]

    warm = asked(2)
    in_threads(llm, warm)
    plain.generate(warm, 2)
    ratios, rates = [], []
    for number in range(sizes.rounds):
        progress(f"bulk generation, round {number + 1} of {sizes.rounds}")
        requests = asked(sizes.tokens)
        ours, n_ours = timed(lambda: in_threads(llm, requests))  # noqa: B023
        theirs, n_theirs = timed(lambda: plain.generate(requests, sizes.tokens))  # noqa: B023
        ratios.append((n_ours / ours) / (n_theirs / theirs))
        rates.append(n_ours / ours)
    rate = statistics.median(rates)
    against = f"one model.generate, {plain.described}"
    report("bulk generation, 32 threads", ratios, 0.9, against, tokens_per_s=round(rate, 1))
    if plain.device != "cuda":
        absent("share of the card's memory bandwidth", "no GPU here")
        return
    # Each decoding pass reads all weights once for the 32 sequences.
    weights = sum(p.numel() * p.element_size() for p in plain.model.parameters())
    report(
        "share of the card's memory bandwidth", [rate / 32 * weights / plain.copy_rate()], None, "a plain copy, bf16"
    )


def scoring(models: Models, rng: random.Random, sizes: Sizes) -> None:
    """The candidates of a choice: the shared prompt once, against once for each."""
    llm, plain = models.load()
    ratios = []
    progress("scoring")
    for _ in range(sizes.scored):
        choices = tuple(f"{verb} the {noun}" for verb in ("take", "open") for noun in rng.sample(NOUNS, 4))
        request = Request((Message("user", scene(rng, 8) + " What do you do?"),), choices=choices)
        ours, scores = timed(lambda: llm.score([request])[0].logprobs)  # noqa: B023
        theirs, expected = timed(lambda: plain.score(request))  # noqa: B023
        if plain.device == "cpu" and max(abs(a - b) for a, b in zip(scores, expected, strict=True)) > 1e-2:
            raise SystemExit("the scores are not those of the plain model")
        ratios.append(theirs / ours)
    report("scoring 8 candidates", ratios, 2.0, f"one padded batch, {plain.described}")


def growing(models: Models, rng: random.Random, sizes: Sizes) -> None:
    """An episode whose prompt grows: what is new, against everything at every step."""
    llm, plain = models.load()
    few, many = sizes.steps
    progress(f"an episode of {many} steps")
    history = [Message("system", "Answer with one command."), Message("user", scene(rng, 2))]
    ours = theirs = 0.0
    computed = total = 0
    per_token = {}
    for step in range(1, many + 1):
        request = Request(tuple(history), choices=("look",))
        seconds, (scores,) = timed(lambda: llm.score([request]))  # noqa: B023
        ours += seconds
        total = scores.usage.prompt_tokens
        computed += total - scores.usage.cached_tokens
        per_token[step] = ours / total
        theirs += timed(lambda: plain.score(request))[0]  # noqa: B023
        history += [Message("assistant", "look"), Message("user", scene(rng, 1))]
    report(f"an episode of {many} steps", [theirs / ours], 2.0, f"every prompt read whole, {plain.described}")
    # The last prompt holds all tokens of the episode: reading each of them once would be 1.
    report(f"tokens of an episode of {many} steps per token computed", [total / computed], 0.5, "each token once")
    # 1 where cost grows with the tokens; where it grows with their square, about few / many.
    ratio = per_token[few] / per_token[many]
    report(
        f"cost of a token in an episode of {many} steps",
        [ratio],
        0.7,
        f"in one of {few} steps (square: {few / many:.1f})",
    )


SERVER_REPLY = {
    "id": "1",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "ok"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 5, "completion_tokens": 1, "total_tokens": 6},
}


async def serve(latency_s: float) -> None:
    """A server that answers every request after ``latency_s``; runs in a process of its own."""
    body = json.dumps(SERVER_REPLY).encode()
    reply = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body) + body

    async def connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                await reader.readexactly(int(head.split(b"content-length:")[1].split(b"\r")[0]))
                await asyncio.sleep(latency_s)
                writer.write(reply)
        writer.close()

    server = await asyncio.start_server(connection, "127.0.0.1", 0, backlog=2048)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


@contextlib.contextmanager
def server(latency_s: float) -> Iterator[str]:
    """The address of such a server."""
    command = [sys.executable, __file__, "--serve", str(latency_s)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}/v1"
        finally:
            process.kill()


def episodes_at_once(ask: Callable[[], object], episodes: int, steps: int) -> float:
    """Seconds until that many threads have asked that many times, one after the other."""

    def episode() -> None:
        for _ in range(steps):
            ask()

    threads = [threading.Thread(target=episode) for _ in range(episodes)]

    def run() -> None:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    return timed(run)[0]


REQUEST = Request((Message("system", "You act. " * 20), Message("user", "You see a lamp. " * 20)), max_tokens=8)


def remote(_: Models, __: random.Random, sizes: Sizes) -> None:
    """Many episodes at once on a server of 1 s latency, against no time but the server's."""
    n, steps = sizes.episodes, sizes.remote_steps
    progress(f"{n} episodes of {steps} steps through openai")
    with server(1.0) as url:
        llm = get_llm("openai/m", base_url=url, api_key="none")
        llm.generate([REQUEST])
        seconds = episodes_at_once(lambda: llm.generate([REQUEST]), n, steps)
    report(f"{n} episodes at once, openai", [steps / seconds], 0.95, f"{steps} steps of 1 s, {versions('openai')}")


def litellm(_: Models, __: random.Random, sizes: Sizes) -> None:
    """The same through litellm, whose own work is most of it: against litellm called bare by as many threads."""
    n, steps = sizes.litellm_episodes, sizes.litellm_steps
    progress(f"{n} episodes of {steps} steps through litellm, and through litellm alone")
    with server(1.0) as url:
        llm: Any = get_llm("litellm/openai/m", base_url=url, api_key="none")
        import litellm as bare

        body = {**llm.body(REQUEST, REQUEST.messages), "model": "openai/m", "api_base": url, "api_key": "none"}
        bare.completion(**body)
        llm.generate([REQUEST])
        theirs = episodes_at_once(lambda: bare.completion(**body), n, steps)
        ours = episodes_at_once(lambda: llm.generate([REQUEST]), n, steps)
    name = f"{n} episodes at once, litellm"
    report(name, [theirs / ours], 0.95, f"litellm.completion in {n} threads, {versions('litellm')}")
    report(f"{name}, of the ideal", [steps / ours], None, f"{steps} steps of 1 s", bare=round(steps / theirs, 3))


PARTS: dict[str, tuple[Callable[[Models, random.Random, Sizes], None], tuple[str, ...]]] = {
    "remote": (remote, ("openai",)),
    "litellm": (litellm, ("litellm",)),
    "bulk": (bulk, ("torch", "transformers")),
    "scoring": (scoring, ("torch", "transformers")),
    "growing": (growing, ("torch", "transformers")),
}


def main() -> int:
    """Run all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="smaller sizes, within 45 seconds")
    parser.add_argument("--seed", type=int, default=0, help="changes the prompts")
    parser.add_argument("--only", action="append", choices=list(PARTS), help="this part alone; can be given again")
    parser.add_argument("--serve", type=float, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve is not None:
        asyncio.run(serve(options.serve))
    models = Models()
    for name in options.only or PARTS:
        part, packages = PARTS[name]
        if options.quick and name == "litellm" and not options.only:
            absent(name, "not with --quick, as importing it takes long; --only litellm measures it")
            continue
        try:
            versions(*packages)
        except PackageNotFoundError as error:
            absent(name, f"{error.name} is not installed")
            continue
        part(models, random.Random(options.seed), QUICK if options.quick else FULL)
    progress("done")
    return int(missed)


if __name__ == "__main__":
    raise SystemExit(main())
