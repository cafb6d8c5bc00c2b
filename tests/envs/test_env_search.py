"""The search world: its actions, its sources, and the published transcripts of Reflexion on HotpotQA."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlparse

import pytest

from agentkit.envs import clean, make
from agentkit.envs.questions import Question
from agentkit.envs.search import (
    CachedPages,
    Page,
    SearchEnv,
    SearchError,
    WikiPages,
    f1,
    pages_of_log,
    read_react_log,
)
from agentkit.envs.tools import parse_call
from agentkit.errors import InvalidValue

PAGES = {
    "Creed (band)": Page("Creed was a rock band.\n== History ==\nActive from 1994 to 2004.\nIn 2004 it disbanded."),
    "Creed": Page("", ("Creed (band)", "Nicene Creed")),
}


def world() -> SearchEnv:
    return SearchEnv([Question("When did Creed disband?", "2004"), Question("Is it?", "no")], CachedPages(PAGES))


def test_search_lookup_and_finish() -> None:
    env = world()
    text, info = env.reset(seed=0)
    assert text == "Question: When did Creed disband?"
    assert "Search[entity]" in info["goal"]
    said = [
        env.step(a)[0]
        for a in [
            "Lookup[2004]",
            "Search[Creed]",
            "search('creed BAND')",
            "Lookup[2004]",
            '{"name": "Lookup", "arguments": {"text": "2004"}}',
            "Lookup[2004]",
            "Lookup[1994]",
            "Lookup[nothing]",
        ]
    ]
    assert said == [
        "The last page Searched was not found, so you cannot Lookup a keyword in it.",
        "Could not find [Creed]. Similar: ['Creed (band)', 'Nicene Creed']",
        "Creed was a rock band.",
        "(Result 1/2) Active from 1994 to 2004.",
        "(Result 2/2) In 2004 it disbanded.",
        "No More Results",
        "(Result 1/1) Active from 1994 to 2004.",
        "No Results",
    ]
    assert "no action" in env.step("think hard")[4]["feedback"]
    assert env.step("Finish[in 2004]")[1:] == (0.0, True, False, {"success": False, "score": pytest.approx(2 / 3)})
    env.reset(seed=0)
    assert env.step("Finish[the 2004]")[4] == {"success": True, "score": 1.0}


def test_the_registered_world_takes_files_and_says_what_is_lacking(tmp_path: Path) -> None:
    with pytest.raises(InvalidValue, match=r"give questions and cache.*questions\.jsonl.*pages\.jsonl.*wiki="):
        make("agentkit/Search-v0")
    questions, cache = tmp_path / "questions.jsonl", tmp_path / "pages.jsonl"
    questions.write_text('{"question": "When did Creed disband?", "answer": "2004"}\n')
    with pytest.raises(InvalidValue, match="give cache"):
        make("agentkit/Search-v0", questions=questions)
    with pytest.raises(InvalidValue, match=r"pages\.jsonl.*wiki="):
        make("agentkit/Search-v0", questions=questions, cache=cache)
    cache.write_text('{"entity": "Creed", "text": "It disbanded in 2004."}\n')
    with pytest.raises(InvalidValue, match=r"no\.jsonl"):
        make("agentkit/Search-v0", questions=tmp_path / "no.jsonl", cache=cache)
    env = make("agentkit/Search-v0", questions=questions, cache=cache, max_episode_steps=2)
    env.reset(seed=0)
    assert env.step("Search[creed]")[0] == "It disbanded in 2004."
    assert env.step("Search[rust]")[2:4] == (False, True)
    env.close()


def test_the_registered_world_asks_a_wiki_where_it_is_told_to(wiki: str, tmp_path: Path) -> None:
    questions, cache = tmp_path / "questions.jsonl", tmp_path / "pages.jsonl"
    questions.write_text('{"question": "What was Creed?", "answer": "a band"}\n')
    for api in (wiki, None):  # then from what it kept alone
        env = make("agentkit/Search-v0", questions=questions, cache=cache, wiki=api)
        env.reset(seed=0)
        assert env.step("Search[Creed (band)]")[0] == "Creed was a band.\nIt ended."
        env.close()


@pytest.mark.parametrize(
    ("said", "reference", "value"),
    [("the Cat sat", "cat sat", 1.0), ("cat", "a black cat", 2 / 3), ("yes", "yes it is", 0.0), ("no", "yes", 0.0)],
)
def test_f1_is_hotpotqas(said: str, reference: str, value: float) -> None:
    assert f1(said, reference) == pytest.approx(value)


class Wiki(BaseHTTPRequestHandler):
    """A MediaWiki with one page, on loopback."""

    asked = 0

    def do_GET(self) -> None:
        Wiki.asked += 1
        query = {k: v[0] for k, v in parse_qs(urlparse(self.path).query).items()}
        answer: dict[str, object]
        if query.get("titles") == "Creed (band)":
            answer = {"query": {"pages": [{"title": "Creed (band)", "extract": "Creed was a band.\n\n\nIt ended."}]}}
        elif "titles" in query:
            answer = {"query": {"pages": [{"title": query["titles"], "missing": True}]}}
        else:
            answer = {"query": {"search": [{"title": "Creed (band)"}]}}
        body = json.dumps(answer).encode()
        self.send_response(500 if query.get("titles") == "broken" else 200)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Nothing is printed."""


@pytest.fixture
def wiki() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Wiki) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/w/api.php"
        server.shutdown()


def test_a_live_wiki_fills_a_cache_that_is_asked_first(wiki: str, tmp_path: Path) -> None:
    cache = tmp_path / "pages.jsonl"
    pages = WikiPages(cache, api=wiki)
    assert pages.find("Creed (band)") == Page("Creed was a band.\nIt ended.")
    assert pages.find("Cred") == Page("", ("Creed (band)",))
    with pytest.raises(SearchError, match="did not answer"):
        pages.find("broken")
    before = Wiki.asked
    again = WikiPages(cache, api=wiki)
    assert again.find("Creed (band)") == pages.find("Creed (band)")
    assert CachedPages(cache).find("Cred") == Page("", ("Creed (band)",))
    assert Wiki.asked == before
    assert isinstance(SearchError("x"), ConnectionError)


def test_wrong_input_is_told(tmp_path: Path) -> None:
    file = tmp_path / "pages.jsonl"
    file.write_text('{"entity": "a", "text": "b"}\n[]\n')
    with pytest.raises(InvalidValue, match="line 2"):
        CachedPages(file)
    with pytest.raises(InvalidValue, match="https"):
        WikiPages(file, api="file:///etc/passwd")
    with pytest.raises(InvalidValue, match="at least one"):
        SearchEnv([], CachedPages({}))
    with pytest.raises(InvalidValue, match=r"index=2: an integer in \[0, 1\] is needed"):
        world().reset(options={"index": 2})


@pytest.mark.fixtures
def test_the_published_transcripts_are_judged_as_they_were(fixtures: Path) -> None:
    """Each Finish of Reflexion's runs on 100 HotpotQA questions is judged as its log says, and each search is answered
    as it first was."""
    labels, searched = 0, 0
    for name in ("react_reflexion_7_trials.txt", "react_base_5_trials.txt"):
        episodes = read_react_log(fixtures / "reflexion_logs" / "hotpotqa" / name)
        questions = {e.question: Question(e.question, e.answer) for e in episodes}
        assert len(questions) == 100
        env = SearchEnv(list(questions.values()), pages_of_log(episodes))
        order, seen = list(questions), set()
        for episode in episodes:
            env.reset(options={"index": order.index(episode.question)})
            for action, observation in episode.steps:
                call = parse_call(action)
                if call is None or not call.args:
                    continue
                if call.name == "Finish" and observation.startswith("Answer is"):
                    text, _, terminated, _, info = env.step(action)
                    assert terminated
                    assert text == observation.splitlines()[0].strip()
                    assert info["success"] == ("INCORRECT" not in observation)
                    labels += 1
                elif call.name == "Search" and call.args[0] not in seen:
                    seen.add(call.args[0])
                    if not observation.startswith("Could not find"):
                        shown = env.step(action)[0]
                        assert shown == clean(observation)[: len(shown)]
                        assert len(shown) >= min(3900, len(observation))
                        searched += 1
    assert labels > 400
    assert searched > 300
