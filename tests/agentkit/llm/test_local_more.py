"""The local backend: JSON by schema, adapters, memory that runs out, files that are damaged."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from agentkit.errors import InvalidValue, UnknownName
from agentkit.llm import Ledger, instrument, metered
from agentkit.llm.errors import DamagedModel, OutOfMemory, UnknownModel, Unsupported
from agentkit.types import Message, Options, Request

if TYPE_CHECKING:
    from agentkit.llm import LocalLLM

pytestmark = pytest.mark.model

ASK = (Message("user", "Describe a cat."),)
SCHEMA = Options(
    {
        "type": "object",
        "properties": {"name": {"type": "string", "maxLength": 12}, "legs": {"type": "integer", "maximum": 9}},
        "required": ["name", "legs"],
        "additionalProperties": False,
    }
)


def test_json_follows_the_schema_whatever_is_drawn(smollm2: LocalLLM) -> None:
    (completions,) = smollm2.generate([Request(ASK, n=4, schema=SCHEMA, seed=1, temperature=1.5, max_tokens=60)])
    assert {c.finish_reason for c in completions} == {"stop"}
    for completion in completions:
        value = json.loads(completion.text)
        assert set(value) == {"name", "legs"}
        assert isinstance(value["legs"], int)
        assert len(value["name"]) <= 12
    with pytest.raises(InvalidValue, match="schema"):
        smollm2.generate([Request(ASK, schema=Options({"type": "no such type"}))])
    with pytest.raises(InvalidValue, match="not both"):
        smollm2.generate([Request(ASK, schema=SCHEMA, choices=("a", "b"))])


def make_adapter(folder: Path, seed: int, **options: Any) -> Any:
    """A LoRA adapter with random weights, saved by PEFT; returns PEFT's own model with it."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    from agentkit.llm.download import embedded_model

    torch.manual_seed(seed)
    config = LoraConfig(r=4, lora_alpha=16, target_modules=["q_proj", "v_proj", "down_proj"], **options)
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(embedded_model()), config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.normal_(0, 0.05)
    model.save_pretrained(folder)
    return model.eval()


def test_adapters_are_loaded_mixed_replaced_and_dropped(smollm2: LocalLLM, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    import torch
    from transformers import AutoTokenizer

    from agentkit.llm.download import embedded_model

    choices = ("a small animal", "a big house")
    one = make_adapter(tmp_path / "one", 1)
    make_adapter(tmp_path / "two", 2, use_rslora=True)
    smollm2.load_adapter("a", tmp_path / "one")
    smollm2.load_adapter("b", tmp_path / "two")
    assert smollm2.adapters == ["a", "b"]
    names = (None, "a", "b")
    alone = [smollm2.score([Request(ASK, choices=choices, adapter=name)])[0] for name in names]
    smollm2.forget()
    mixed = smollm2.score([Request(ASK, choices=choices, adapter=name) for name in names])
    assert [s.logprobs for s in mixed] == [s.logprobs for s in alone]
    assert len({s.logprobs for s in mixed}) == 3
    assert len({s.request_hash for s in mixed}) == 3

    tokenizer = AutoTokenizer.from_pretrained(embedded_model())
    chat = [{"role": m.role, "content": m.content} for m in ASK]
    text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    start = tokenizer(text, add_special_tokens=False)["input_ids"]
    for choice, score in zip(choices, mixed[1].logprobs, strict=True):
        ids = tokenizer(choice, add_special_tokens=False)["input_ids"]
        with torch.inference_mode():
            logprobs = torch.log_softmax(one(torch.tensor([start + ids])).logits[0], -1)
        expected = sum(float(logprobs[len(start) - 1 + k, token]) for k, token in enumerate(ids))
        assert score == pytest.approx(expected, abs=1e-2)

    smollm2.load_adapter("a", tmp_path / "two")
    (replaced,) = smollm2.score([Request(ASK, choices=choices, adapter="a")])
    assert replaced.logprobs == mixed[2].logprobs
    smollm2.drop_adapter("a")
    with pytest.raises(UnknownName, match="'a'"):
        smollm2.score([Request(ASK, choices=choices, adapter="a")])
    with pytest.raises(UnknownName):
        smollm2.drop_adapter("a")
    smollm2.drop_adapter("b")
    (base,) = smollm2.score([Request(ASK, choices=choices)])
    assert base.logprobs == alone[0].logprobs


def test_adapters_that_cannot_be_used(smollm2: LocalLLM, tmp_path: Path) -> None:
    pytest.importorskip("peft")
    with pytest.raises(UnknownModel, match=r"adapter_config\.json"):
        smollm2.load_adapter("x", tmp_path)
    make_adapter(tmp_path / "dora", 1, use_dora=True)
    with pytest.raises(Unsupported, match="use_dora"):
        smollm2.load_adapter("x", tmp_path / "dora")
    make_adapter(tmp_path / "cut", 1)
    weights = tmp_path / "cut" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(DamagedModel, match="cannot be read"):
        smollm2.load_adapter("x", tmp_path / "cut")
    assert smollm2.adapters == []


def test_a_pass_that_does_not_fit_is_halved(smollm2: LocalLLM, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from agentkit.llm.packed import Net, Plan

    asked = [Request((Message("user", f"Count to {i}."),), n=2, max_tokens=5, seed=i) for i in range(6)]
    expected = [[c.text for c in answer] for answer in smollm2.generate(asked)]
    whole, sizes = Net.forward, []

    def small(net: Net, plan: Plan) -> torch.Tensor:
        sizes.append(len(plan.ids))
        if len(plan.ids) > limit:
            raise torch.OutOfMemoryError("out of memory")
        return whole(net, plan)

    limit = 40
    monkeypatch.setattr(Net, "forward", small)
    smollm2.forget()
    assert [[c.text for c in answer] for answer in smollm2.generate(asked)] == expected
    assert max(sizes) > limit
    limit = 4
    smollm2.forget()
    with pytest.raises(OutOfMemory, match="does not fit"):
        smollm2.generate(asked)
    limit = 1000
    assert [[c.text for c in answer] for answer in smollm2.generate(asked)] == expected


def test_what_was_answered_beside_a_failure_is_charged(smollm2: LocalLLM, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from agentkit.llm.packed import Net, Plan

    whole = Net.forward

    def small(net: Net, plan: Plan) -> torch.Tensor:
        if len(plan.ids) > 24:
            raise torch.OutOfMemoryError("out of memory")
        return whole(net, plan)

    fits = Request((Message("user", "Count to 3."),), max_tokens=2, temperature=0)
    choices = tuple(f"{i} cats and {i} dogs went out" for i in range(20))
    too_much = Request((Message("user", "Choose."),), choices=choices)
    ((answer,),) = smollm2.generate([fits])
    smollm2.forget()
    monkeypatch.setattr(Net, "forward", small)
    ledger = Ledger(tokens=100_000)
    with metered(ledger=ledger), pytest.raises(OutOfMemory, match="does not fit"):
        instrument(smollm2).generate([too_much, fits])
    assert ledger.spent.tokens == answer.usage.tokens
    scored = Request(fits.messages, choices=("a", "b"))
    ledger = Ledger(tokens=100_000)
    with metered(ledger=ledger), pytest.raises(OutOfMemory):
        instrument(smollm2).score([too_much, scored])  # type: ignore[attr-defined]
    assert ledger.spent.tokens == smollm2.score([scored])[0].usage.tokens > 0


def test_gguf_files_that_are_damaged(tmp_path: Path) -> None:
    from agentkit.llm import get_llm

    path = tmp_path / "model.gguf"
    good = b"GGUF" + (3).to_bytes(4, "little") + (1).to_bytes(8, "little") + (0).to_bytes(8, "little")
    name = (1).to_bytes(8, "little") + b"t"
    tensor = name + (1).to_bytes(4, "little") + (4096).to_bytes(8, "little") + bytes(4) + bytes(8)
    cases = {
        b"": "0 bytes",
        b"PK\x03\x04" + bytes(100): "not a GGUF",
        b"GGUF" + (9).to_bytes(4, "little") + bytes(100): "version 9",
        good[:24] + b"\xff" * 40: "damaged",
        good + tensor + bytes(64): "cut short",
    }
    for content, message in cases.items():
        path.write_bytes(content)
        with pytest.raises(DamagedModel, match=message):
            get_llm(f"local/{path}")


def test_a_folder_that_is_damaged(tmp_path: Path) -> None:
    from agentkit.llm import get_llm
    from agentkit.llm.download import embedded_model

    broken = tmp_path / "broken"
    shutil.copytree(embedded_model(), broken, ignore=shutil.ignore_patterns("*.safetensors"))
    (broken / "model.safetensors").write_bytes(b"\x10\x00\x00\x00\x00\x00\x00\x00{}garbage")
    with pytest.raises(DamagedModel, match="cannot be loaded"):
        get_llm(f"local/{broken}")
