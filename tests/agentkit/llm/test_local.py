"""The local backend, on the embedded model. Reference numbers are those of transformers' own forward pass."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from agentkit.errors import InvalidValue
from agentkit.llm.errors import ContextTooLong, UnknownModel
from agentkit.testing.models import check_llm
from agentkit.types import Completion, Message, Request, Scores

if TYPE_CHECKING:
    from agentkit.llm import LocalLLM

pytestmark = pytest.mark.model

SYSTEM = Message("system", "You steer a robot through a house. Answer with one command. " * 3)
CHOICES = ("go north", "go south", "take lamp", "open door", "look", "put lamp on table")


def prompt(i: int) -> tuple[Message, ...]:
    seen = f"You are in room {i}. You see a lamp and a table. " * (1 + i % 3)
    return (SYSTEM, Message("user", seen + "What do you do next?"))


def answers(completions: list[Completion]) -> list[object]:
    return [(c.text, c.finish_reason, c.logprobs) for c in completions]


def test_it_keeps_the_contract(smollm2: LocalLLM) -> None:
    check_llm(smollm2, deterministic=True)


def test_it_knows_the_capital_of_france(smollm2: LocalLLM) -> None:
    request = Request((Message("user", "What is the capital of France?"),), temperature=0, max_tokens=20)
    ((completion,),) = smollm2.generate([request])
    assert completion.text == "The capital of France is Paris."
    assert completion.finish_reason == "stop"
    assert completion.usage.completion_tokens == 8


def test_results_do_not_depend_on_what_is_computed_beside_them(smollm2: LocalLLM) -> None:
    asked = [
        Request(prompt(i), n=1 + i % 2, max_tokens=6, seed=i, top_p=0.9 if i % 3 else 1.0, logprobs=True)
        for i in range(8)
    ]
    scored = [Request(prompt(i), choices=CHOICES) for i in range(8)]
    texts = [answers(smollm2.generate([r])[0]) for r in asked]
    scores = [smollm2.score([r])[0].logprobs for r in scored]

    def both_of(i: int) -> tuple[list[list[Completion]], list[Scores]]:
        return smollm2.generate([asked[i]]), smollm2.score([scored[i]])

    for threads in (1, 8):
        smollm2.forget()
        order = list(range(8))
        random.Random(threads).shuffle(order)
        with ThreadPoolExecutor(threads) as pool:
            both = [pool.submit(both_of, i) for i in order]
            for i, future in zip(order, both, strict=True):
                generated, again = future.result()
                assert answers(generated[0]) == texts[i]
                assert again[0].logprobs == scores[i]


def test_scores_are_those_of_a_plain_forward_pass(smollm2: LocalLLM) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from agentkit.llm.download import embedded_model

    folder = embedded_model()
    tokenizer, plain = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    many = tuple(f"{verb} the {noun}" for verb in ("take", "drop", "open", "eat") for noun in CHOICES)
    for choices in (CHOICES, many):
        (scores,) = smollm2.score([Request(prompt(1), choices=choices)])
        chat = [{"role": m.role, "content": m.content} for m in prompt(1)]
        text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        start = tokenizer(text, add_special_tokens=False)["input_ids"]
        for choice, score, length in zip(choices, scores.logprobs, scores.lengths, strict=True):
            ids = tokenizer(choice, add_special_tokens=False)["input_ids"]
            with torch.inference_mode():
                logprobs = torch.log_softmax(plain(torch.tensor([start + ids])).logits[0], -1)
            expected = sum(float(logprobs[len(start) - 1 + k, token]) for k, token in enumerate(ids))
            assert score == pytest.approx(expected, abs=1e-3)
            assert length == len(ids)


def test_greedy_tokens_and_their_logprobs_are_those_of_plain_generate(smollm2: LocalLLM) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from agentkit.llm.download import embedded_model

    folder = embedded_model()
    tokenizer, plain = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    request = Request(prompt(2), temperature=0, max_tokens=20, logprobs=True)
    ((completion,),) = smollm2.generate([request])
    chat = [{"role": m.role, "content": m.content} for m in prompt(2)]
    text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    inputs = tokenizer(text, return_tensors="pt", add_special_tokens=False)
    out = plain.generate(**inputs, max_new_tokens=20, do_sample=False, output_logits=True, return_dict_in_generate=True)
    new = out.sequences[0, inputs["input_ids"].shape[1] :]
    assert completion.text == tokenizer.decode(new, skip_special_tokens=True)
    assert completion.logprobs is not None
    expected = [float(torch.log_softmax(row[0], -1)[token]) for row, token in zip(out.logits, new, strict=True)]
    assert [t.logprob for t in completion.logprobs] == pytest.approx(expected, abs=1e-3)


def test_a_growing_prompt_computes_what_is_new(smollm2: LocalLLM) -> None:
    smollm2.forget()
    history, computed, total = [SYSTEM, Message("user", "Begin.")], 0, 0
    for step in range(12):
        (scores,) = smollm2.score([Request(tuple(history), choices=("north", "south"))])
        total = scores.usage.prompt_tokens
        computed += total - scores.usage.cached_tokens
        history += [Message("assistant", "north"), Message("user", f"You come to room {step}. It is dark here.")]
    assert computed < total + 12 * 20  # each step computes its new tokens and less than one block again


def test_the_same_score_again_is_a_look_up(smollm2: LocalLLM) -> None:
    request = Request(prompt(1), choices=("yes", "no", "never"))
    (first,), (second,) = smollm2.score([request]), smollm2.score([request])
    assert second.logprobs == first.logprobs
    assert second.usage.cached_tokens == second.usage.prompt_tokens == first.usage.prompt_tokens


def test_a_choice_is_drawn_by_likelihood(smollm2: LocalLLM) -> None:
    import math

    (scores,) = smollm2.score([Request(prompt(0), choices=CHOICES)])
    best = CHOICES[max(range(len(CHOICES)), key=lambda i: scores.logprobs[i])]
    ((greedy,),) = smollm2.generate([Request(prompt(0), choices=CHOICES, temperature=0)])
    assert greedy.text == best
    (drawn,) = smollm2.generate([Request(prompt(0), choices=CHOICES, n=2000, seed=5)])
    weights = [math.exp(v) for v in scores.logprobs]
    for choice, weight in zip(CHOICES, weights, strict=True):
        share = sum(c.text == choice for c in drawn) / 2000
        assert share == pytest.approx(weight / sum(weights), abs=0.05)


def test_stop_strings_cut_the_answer(smollm2: LocalLLM) -> None:
    ask = (Message("user", "What is the capital of France?"),)
    ((completion,),) = smollm2.generate([Request(ask, temperature=0, max_tokens=20, stop=(" of", "Paris"))])
    assert completion.text == "The capital"
    assert completion.finish_reason == "stop"
    ((completion,),) = smollm2.generate([Request(ask, temperature=0, max_tokens=3)])
    assert completion.text == "The capital of"
    assert completion.finish_reason == "length"


def test_a_last_message_of_the_assistant_is_gone_on_with(smollm2: LocalLLM) -> None:
    chat = (Message("user", "What is the capital of France?"), Message("assistant", "The capital of France is"))
    ((completion,),) = smollm2.generate([Request(chat, temperature=0, max_tokens=3)])
    assert completion.text.startswith(" Paris")


def test_bad_requests_are_refused(smollm2: LocalLLM) -> None:
    with pytest.raises(InvalidValue, match="choices"):
        smollm2.score([Request(prompt(0))])
    with pytest.raises(InvalidValue, match="no tokens"):
        smollm2.score([Request(prompt(0), choices=("a", ""))])
    with pytest.raises(InvalidValue, match="max_tokens"):
        smollm2.generate([Request(prompt(0), max_tokens=0)])
    with pytest.raises(InvalidValue, match="message"):
        smollm2.generate([Request(())])
    long = Request((Message("user", "word " * 9000),))
    with pytest.raises(ContextTooLong, match="takes at most 8192"):
        smollm2.generate([long])


def test_a_prompt_that_is_too_long_is_an_error_or_loses_its_oldest_history(
    smollm2: LocalLLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns = [Message("user", f"You are in room {i}. It is dark, and you hear a bell.") for i in range(8)]
    asked = Request((Message("system", "Answer briefly."), *turns), temperature=0, max_tokens=6)
    kept = Request((Message("system", "Answer briefly."), *turns[-2:]), temperature=0, max_tokens=6)
    monkeypatch.setattr(smollm2._net, "context", smollm2.count_tokens(kept.messages) + 10)
    with pytest.raises(
        ContextTooLong, match=rf"has {smollm2.count_tokens(asked.messages)} .*at most {smollm2.context}"
    ):
        smollm2.generate([asked])
    monkeypatch.setattr(smollm2, "overflow", "truncate")
    ((cut,),), ((expected,),) = smollm2.generate([asked]), smollm2.generate([kept])
    assert (cut.text, cut.usage.prompt_tokens) == (expected.text, smollm2.count_tokens(kept.messages))
    with pytest.raises(ContextTooLong):  # the last message alone is too long
        smollm2.generate([Request((Message("user", "room " * 200),), max_tokens=6)])


def test_a_model_that_is_not_there() -> None:
    pytest.importorskip("torch")
    from agentkit.llm import get_llm

    with pytest.raises(UnknownModel, match="no folder"):
        get_llm("local/./no/such/folder")
    with pytest.raises(UnknownModel, match="no file"):
        get_llm("local/no-such-file.gguf")
