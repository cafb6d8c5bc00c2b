"""Questions to be answered by searching an encyclopedia: the world of HotpotQA agents.

The actions are those of ReAct (Yao et al., 2023): ``Search[entity]`` shows the lead of a page, ``Lookup[text]`` the
next paragraph of that page with the text in it, ``Finish[answer]`` answers. Pages come from a cache, or from a live
wiki that fills one; see docs/worlds/search.md.
"""

from __future__ import annotations

import json
import re
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, SupportsFloat

import gymnasium

from agentkit.envs.questions import Question, as_questions, exact_match, normalized, question_of
from agentkit.envs.spaces import check_action, clean, quoted, text_space
from agentkit.envs.tasks import as_path, checked, read_options
from agentkit.envs.tools import parse_call
from agentkit.errors import AgentkitError, InvalidValue

_ACTIONS = "Actions: Search[entity], Lookup[text], Finish[answer]"
_LEAD = 4000
_LOG_STEP = re.compile(r"^(Action|Observation) \d+: ", re.MULTILINE)


class SearchError(AgentkitError, ConnectionError):
    """The wiki did not answer."""


@dataclass(frozen=True, slots=True)
class Page:
    """What a search found: a page's text, its paragraphs separated by line ends and its headings written
    ``== History ==``; or, with an empty text, titles that are similar."""

    text: str
    similar: tuple[str, ...] = ()


class Pages(Protocol):
    """Where pages come from."""

    def find(self, entity: str) -> Page:
        """The page called ``entity``, or titles like it."""
        ...


class CachedPages:
    """Pages that are held: a mapping from what is searched for to its `Page`, or a JSONL file with ``entity`` and
    ``text`` or ``similar`` in each line. What is not held is not found."""

    def __init__(self, pages: Mapping[str, Page] | str | Path) -> None:
        self._pages = dict(pages) if isinstance(pages, Mapping) else _read_pages(as_path("cache", pages))
        self._loose = {normalized(entity): entity for entity in reversed(self._pages)}

    def find(self, entity: str) -> Page:
        key = entity if entity in self._pages else self._loose.get(normalized(entity), entity)
        return self._pages.get(key, Page("", ()))


class WikiPages:
    """Pages of a MediaWiki, Wikipedia by default, with a cache that is asked first.

    Args:
        cache: a JSONL file that each page found is appended to; with it, an episode can be repeated as it was.
        api: the wiki's ``api.php``.
        timeout_s: seconds to wait for an answer; after them a search raises `SearchError`.
    """

    def __init__(
        self, cache: str | Path, *, api: str = "https://en.wikipedia.org/w/api.php", timeout_s: float = 20.0
    ) -> None:
        if not checked("api", api, str).startswith(("https://", "http://")):
            raise InvalidValue(f"api={api!r}: an address that starts with https:// is needed")
        self._cache, self._api = as_path("cache", cache), api
        self._timeout_s = checked("timeout_s", timeout_s, float, low=0.01)
        self._pages = _read_pages(self._cache) if self._cache.exists() else {}
        self._lock = threading.Lock()

    def find(self, entity: str) -> Page:
        with self._lock:
            if entity not in self._pages:
                self._pages[entity] = page = self._fetch(entity)
                line = {"entity": entity, "text": page.text, "similar": list(page.similar)}
                with self._cache.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(line, ensure_ascii=False) + "\n")
            return self._pages[entity]

    def _fetch(self, entity: str) -> Page:
        if not entity.strip():
            return Page("")
        answer = self._ask(action="query", prop="extracts", explaintext="1", redirects="1", titles=entity)
        for page in answer.get("query", {}).get("pages", []):
            if text := str(page.get("extract", "")).strip():
                return Page(re.sub(r"\n{2,}", "\n", text))
        found = self._ask(action="query", list="search", srsearch=entity, srlimit="5")
        return Page("", tuple(str(hit["title"]) for hit in found.get("query", {}).get("search", [])))

    def _ask(self, **parameters: str) -> dict[str, Any]:
        query = urllib.parse.urlencode({**parameters, "format": "json", "formatversion": "2"})
        request = urllib.request.Request(  # noqa: S310  the scheme is checked above
            f"{self._api}?{query}", headers={"User-Agent": "agentkit (text environment for agents)"}
        )
        try:
            with urllib.request.urlopen(request, timeout=self._timeout_s) as response:  # noqa: S310
                answer: dict[str, Any] = json.loads(response.read(5_000_000))
        except (urllib.error.URLError, TimeoutError, ValueError) as error:
            raise SearchError(f"{self._api} did not answer the search: {error}") from None
        return answer


class SearchEnv(gymnasium.Env[str, str]):
    """A question to be answered by searching.

    Args:
        questions: the items, or a JSONL file with ``question`` and ``answer`` in each line.
        pages: where searches look.

    A seed asks the question ``seed % len(questions)``. Success: the answer is the reference, both in the normal form of
    HotpotQA's exact match; the score is their F1. Options of ``reset``: ``index``, ``gold``.
    """

    metadata = {"render_modes": []}  # noqa: RUF012  Gymnasium declares it so

    def __init__(self, questions: Sequence[Question] | str | Path, pages: Pages) -> None:
        self._questions = as_questions(questions)
        self.observation_space, self.action_space = text_space(), text_space()
        self._pages = pages
        self._question = self._questions[0]
        self._paragraphs: list[str] | None = None
        self._looked_up, self._next = "", 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        super().reset(seed=seed)
        chosen = read_options(options, {"index": None}, index=int)
        self._question = question_of(self._questions, chosen["index"], seed, self.np_random)
        self._paragraphs, self._looked_up, self._next = None, "", 0
        info: dict[str, Any] = {"goal": f"Answer the question by searching. {_ACTIONS}."}
        if chosen["gold"]:
            info["gold"] = [f"Finish[{self._question.answer}]"]
        return clean(f"Question: {self._question.text.strip()}"), info

    def step(self, action: str) -> tuple[str, SupportsFloat, bool, bool, dict[str, Any]]:
        check_action(action)
        info: dict[str, Any] = {"success": False, "score": 0.0}
        call = parse_call(action)
        argument = ""
        if call is not None:
            values = [*call.args, *call.kwargs.values()]
            argument = str(values[0]).strip() if values else ""
        match call.name.lower() if call is not None else "":
            case "search":
                return clean(self._search(argument)), 0.0, False, False, info
            case "lookup":
                return clean(self._lookup(argument)), 0.0, False, False, info
            case "finish":
                right = exact_match(argument, self._question)
                info = {"success": right, "score": f1(argument, self._question.answer)}
                return f"Answer is {'CORRECT' if right else 'INCORRECT'}", float(right), True, False, info
        text = info["feedback"] = clean(f"{quoted(action)} is no action. {_ACTIONS}.")
        return text, 0.0, False, False, info

    def _search(self, entity: str) -> str:
        page = self._pages.find(entity)
        self._looked_up, self._next = "", 0
        if not page.text:
            self._paragraphs = None
            similar = f" Similar: {list(page.similar)}" if page.similar else ""
            return f"Could not find [{entity}].{similar}"
        self._paragraphs = [p.strip() for p in page.text.split("\n") if p.strip() and not p.startswith("==")]
        return page.text.partition("\n==")[0][:_LEAD].strip()

    def _lookup(self, text: str) -> str:
        if self._paragraphs is None:
            return "The last page Searched was not found, so you cannot Lookup a keyword in it."
        if text.lower() != self._looked_up:
            self._looked_up, self._next = text.lower(), 0
        hits = [p for p in self._paragraphs if self._looked_up in p.lower()] if text else []
        if not hits:
            return "No Results"
        if self._next >= len(hits):
            return "No More Results"
        self._next += 1
        return f"(Result {self._next}/{len(hits)}) {hits[self._next - 1]}"


def search_env(
    questions: Sequence[Question] | str | Path | None = None, cache: str | Path | None = None, wiki: str | None = None
) -> SearchEnv:
    """The environment ``agentkit/Search-v0``, from files.

    Args:
        questions: as for `SearchEnv`. There is no data set in this package: without any, `InvalidValue` says what to
            give.
        cache: the JSONL file of pages (see `CachedPages`). With ``wiki`` it need not exist, and grows.
        wiki: a MediaWiki's ``api.php`` to ask for what the cache does not hold (see `WikiPages`). None asks nobody.
    """
    if questions is None or cache is None:
        lacking = [name for name, value in (("questions", questions), ("cache", cache)) if value is None]
        raise InvalidValue(
            f"agentkit/Search-v0 has no data of its own: give {' and '.join(lacking)}. For example "
            'make("agentkit/Search-v0", questions="questions.jsonl", cache="pages.jsonl"), with lines like '
            '{"question": "…", "answer": "…"} and {"entity": "…", "text": "…"}; '
            'wiki="https://en.wikipedia.org/w/api.php" asks Wikipedia for pages that the cache does not hold.'
        )
    file = as_path("cache", cache)
    pages = CachedPages(file) if wiki is None else WikiPages(file, api=checked("wiki", wiki, str))
    return SearchEnv(questions, pages)


def f1(answer: str, reference: str) -> float:
    """The F1 of the words of two answers, as HotpotQA scores them: yes, no and noanswer are right or wrong."""
    said, expected = normalized(answer), normalized(reference)
    if said == expected:
        return 1.0
    if {said, expected} & {"yes", "no", "noanswer"}:
        return 0.0
    a, b = said.split(), expected.split()
    common = sum((Counter(a) & Counter(b)).values())
    return 2 * common / (len(a) + len(b)) if common else 0.0


@dataclass(frozen=True, slots=True)
class LoggedEpisode:
    """An episode of a published transcript: (action, observation) pairs, and the reference answer."""

    question: str
    steps: tuple[tuple[str, str], ...]
    answer: str


def read_react_log(path: str | Path) -> list[LoggedEpisode]:
    """The episodes of a transcript in the form in which Reflexion's HotpotQA runs were published (Shinn et al., 2023).

    Reflections before a question, and thoughts, are passed over.
    """
    episodes = []
    for block in re.split(r"^Question: ", Path(path).read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]:
        body, found, rest = block.partition("\nCorrect answer: ")
        if not found:
            continue
        question, _, transcript = body.partition("\n")
        question = question.partition("You have attempted to answer following question")[0]
        parts = _LOG_STEP.split(re.sub(r"^Thought \d+: .*?(?=^Action \d+: |\Z)", "", transcript, flags=re.M | re.S))
        steps, action = [], ""
        for kind, text in zip(parts[1::2], parts[2::2], strict=False):
            if kind == "Action":
                action = text.strip()
            else:
                steps.append((action, text.strip()))
        episodes.append(LoggedEpisode(question.strip(), tuple(steps), rest.partition("\n")[0].strip()))
    return episodes


def pages_of_log(episodes: Sequence[LoggedEpisode]) -> CachedPages:
    """The pages that the searches of a transcript saw, as far as they were shown."""
    pages: dict[str, Page] = {}
    for episode in episodes:
        for action, observation in episode.steps:
            call = parse_call(action)
            if call is not None and call.name == "Search" and call.args:
                missing = re.match(r"Could not find \[.*?\]\. ?(?:Similar: (.*))?", observation, re.DOTALL)
                similar = tuple(re.findall(r"'([^']+)'|\"([^\"]+)\"", missing[1] or "")) if missing else ()
                page = Page("", tuple(a or b for a, b in similar)) if missing else Page(observation)
                pages.setdefault(str(call.args[0]).strip(), page)
    return CachedPages(pages)


def _read_pages(path: Path) -> dict[str, Page]:
    pages = {}
    if not path.is_file():
        raise InvalidValue(f"{path}: there is no such file of pages. Give one, or wiki=… to fill it from a wiki.")
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if line.strip():
            try:
                row = json.loads(line)
                pages[str(row["entity"])] = Page(str(row.get("text", "")), tuple(map(str, row.get("similar", ()))))
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                form = '{"entity": "…", "text": "…"}'
                raise InvalidValue(f"{path}, line {number}: each line is {form} ({error!r})") from None
    return pages
