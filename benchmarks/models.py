"""How fast models are asked, as ratios against the plain way, measured side by side in one run.

One JSON object a line: ``name``, ``ratio`` (above 1: better than the peer), ``spread`` (of the rounds, as a share of
the ratio), ``target``, ``ok`` and what it was compared with. Exits with 1 when a target is missed.

    python benchmarks/models.py [--quick] [--seed N]
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
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from agentkit.llm import LLM, get_llm
from agentkit.types import Message, Request

MODEL = "local/smollm2-135m"
NOUNS = (
    "lamp",
    "door",
    "table",
    "garden",
    "river",
    "letter",
    "engine",
    "bottle",
    "window",
    "basket",
    "mirror",
    "candle",
)
missed = False


def report(name: str, ratios: Sequence[float], target: float | None, against: str, **more: Any) -> None:
    """Print one result. Without a target it is a figure, not a check."""
    global missed  # the exit status of the one run that this script is
    ratio = statistics.median(ratios)
    ok = target is None or ratio >= target
    missed |= not ok
    spread = (max(ratios) - min(ratios)) / ratio
    line = {"name": name, "ratio": round(ratio, 3), "spread": round(spread, 3), "target": target, "ok": ok}
    print(json.dumps({**line, "against": against, **more}), flush=True)


def absent(name: str, peer: str) -> None:
    """Print that a peer is not installed: neither a pass nor a miss."""
    print(json.dumps({"name": name, "skipped": f"{peer} is not installed"}), flush=True)


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
        self.torch, self.device = torch, device
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


def bulk(llm: Any, plain: Plain, rng: random.Random, rounds: int, tokens: int) -> None:
    """32 episodes at once against one batch of 32."""
    ratios, rates = [], []
    for _ in range(rounds):
        asked = [
            Request(
                (Message("user", f"Tell a long story. {scene(rng, rng.randint(2, 6))}"),),
                temperature=0,
                max_tokens=tokens,
            )
            for _ in range(32)
        ]
        ours, n_ours = timed(lambda: in_threads(llm, asked))  # noqa: B023
        theirs, n_theirs = timed(lambda: plain.generate(asked, tokens))  # noqa: B023
        ratios.append((n_ours / ours) / (n_theirs / theirs))
        rates.append(n_ours / ours)
    more: dict[str, Any] = {"tokens_per_s": round(statistics.median(rates), 1)}
    if plain.device == "cuda":
        # Each decoding pass reads all weights once for the 32 sequences.
        weights = sum(p.numel() * p.element_size() for p in plain.model.parameters())
        bandwidth = float(os.environ.get("GPU_BYTES_PER_S", "4.8e12"))
        more["bandwidth_share"] = round(statistics.median(rates) / 32 * weights / bandwidth, 4)
    report("bulk generation, 32 threads", ratios, 0.9, versions("torch", "transformers") + " generate", **more)


def scoring(llm: Any, plain: Plain, rng: random.Random, rounds: int) -> None:
    """The candidates of a choice: the shared prompt once, against once for each."""
    ratios = []
    for _ in range(rounds):
        choices = tuple(f"{verb} the {noun}" for verb in ("take", "open") for noun in rng.sample(NOUNS, 4))
        request = Request((Message("user", scene(rng, 16) + " What do you do?"),), choices=choices)
        ours, scores = timed(lambda: llm.score([request])[0].logprobs)  # noqa: B023
        theirs, expected = timed(lambda: plain.score(request))  # noqa: B023
        if plain.device == "cpu" and max(abs(a - b) for a, b in zip(scores, expected, strict=True)) > 1e-2:
            raise SystemExit("the scores are not those of the plain model")
        ratios.append(theirs / ours)
    report("scoring 8 candidates", ratios, 2.0, versions("torch", "transformers") + ", one padded batch")


def growing(llm: Any, plain: Plain, rng: random.Random, steps: int) -> None:
    """An episode whose prompt grows: what is new, against everything at every step."""
    history = [Message("system", "Answer with one command."), Message("user", scene(rng, 2))]
    ours = theirs = 0.0
    computed = total = 0
    for _ in range(steps):
        request = Request(tuple(history), choices=("look",))
        seconds, (scores,) = timed(lambda: llm.score([request]))  # noqa: B023
        ours += seconds
        total = scores.usage.prompt_tokens
        computed += total - scores.usage.cached_tokens
        theirs += timed(lambda: plain.score(request))[0]  # noqa: B023
        history += [Message("assistant", "look"), Message("user", scene(rng, 1))]
    against = versions("torch", "transformers") + ", every prompt read whole"
    report(f"an episode of {steps} steps", [theirs / ours], 2.0 if steps < 30 else 3.0, against)
    # The last prompt holds all tokens of the episode: reading each of them once would be 1.
    share = total / computed
    report(f"tokens of an episode of {steps} steps per token computed", [share], 0.5, "each token once")


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


def remote(name: str, package: str, episodes: int, steps: int, latency_s: float, target: float | None) -> None:
    """Many episodes at once on a slow server, against no time but the server's."""
    try:
        against = f"{steps} steps of {latency_s} s, through {versions(package)}"
    except PackageNotFoundError:
        absent(f"{episodes} episodes, {package}", package)
        return
    with server(latency_s) as url:
        llm = get_llm(name, base_url=url, api_key="none")
        request = Request((Message("system", "You act. " * 20), Message("user", "You see a lamp. " * 20)), max_tokens=8)
        llm.generate([request])

        def episode() -> None:
            for _ in range(steps):
                llm.generate([request])

        threads = [threading.Thread(target=episode) for _ in range(episodes)]

        def run() -> None:
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()

        seconds, _ = timed(run)
    report(f"{episodes} episodes at once, {package}", [steps * latency_s / seconds], target, against)


def main() -> int:
    """Run all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="smaller sizes, within 45 seconds")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--serve", type=float, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve is not None:
        asyncio.run(serve(options.serve))
    rng, quick = random.Random(options.seed), options.quick
    remote("openai/m", "openai", 256, 12 if quick else 30, 1.0, 0.95)
    remote("litellm/openai/m", "litellm", 32 if quick else 64, 2 if quick else 10, 1.0, None)
    try:
        import torch
        import transformers  # noqa: F401
    except ImportError as error:
        absent("the local backend", str(error.name))
        return int(missed)
    device, dtype = ("cuda", "bfloat16") if torch.cuda.is_available() else ("cpu", "float32")
    llm: Any = get_llm(MODEL, device=device, dtype=dtype)
    plain = Plain(device, dtype)
    plain.generate([Request((Message("user", "warm up"),))], 2)
    bulk(llm, plain, rng, 1 if quick else 3, 8 if quick else 48)
    scoring(llm, plain, rng, 3 if quick else 9)
    growing(llm, plain, rng, 8 if quick else 30)
    return int(missed)


if __name__ == "__main__":
    raise SystemExit(main())
