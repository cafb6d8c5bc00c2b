"""Question-answer data sets with a verifier, as environments: the action is the answer."""

from __future__ import annotations

import inspect
import json
import re
import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, SupportsFloat

import gymnasium
from numpy.random import Generator

from agentkit.envs.spaces import check_action, clean, text_space
from agentkit.envs.tasks import as_score, by_seed, checked, choose, read_options
from agentkit.errors import InvalidValue

Verifier = Callable[[str, "Question"], "float | bool"]
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")


@dataclass(frozen=True, slots=True)
class Question:
    """One item. ``data`` is whatever a verifier needs beside the reference answer."""

    text: str
    answer: str
    data: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.text.__class__ is not str or self.answer.__class__ is not str:  # there may be many: a call costs more
            checked("text", self.text, str)
            checked("answer", self.answer, str)


def normalized(text: str) -> str:
    """Lower case without punctuation, articles and extra space: the normal form of SQuAD's and HotpotQA's scores."""
    text = "".join(c for c in text.lower() if c not in string.punctuation)
    return " ".join(_ARTICLES.sub(" ", text).split())


def exact_match(answer: str, question: Question) -> bool:
    """Whether the answer is the reference, both `normalized`."""
    return normalized(answer) == normalized(question.answer)


def same_number(answer: str, question: Question) -> bool:
    """Whether the last number in the answer is the last one in the reference."""
    numbers = [_NUMBER.findall(text) for text in (answer, question.answer)]
    if not all(numbers):
        return False
    said, expected = (float(found[-1].replace(",", "")) for found in numbers)
    return said == expected


VERIFIERS: dict[str, Verifier] = {"exact_match": exact_match, "same_number": same_number}


class QuestionEnv(gymnasium.Env[str, str]):
    """One question an episode.

    Args:
        questions: the items; or a JSONL file with ``question`` and ``answer`` in each line (other keys become
            `Question.data`).
        verify: a function of the answer and the `Question` to a score in [0, 1], or the name of one in `VERIFIERS`.
            Success is the score 1. One that raises has judged the answer worth nothing, and what it said is feedback.
        attempts: how often the agent may answer; a wrong answer before the last is told to be wrong.
        goal: what is to be done.

    A seed asks the question ``seed % len(questions)``; ``options={"index": i}`` asks the i-th.
    """

    metadata = {"render_modes": []}  # noqa: RUF012  Gymnasium declares it so

    def __init__(
        self,
        questions: Sequence[Question] | str | Path,
        *,
        verify: Verifier | str = "exact_match",
        attempts: int = 1,
        goal: str = "Answer the question.",
    ) -> None:
        if not callable(verify):
            verify = VERIFIERS[choose("verify", verify, VERIFIERS)]
        _check_verifier(verify)
        questions = as_questions(questions)
        checked("attempts", attempts, int, low=1)
        self.observation_space, self.action_space = text_space(), text_space()
        self._questions, self._verify, self._attempts, self._goal = questions, verify, attempts, goal
        self._question = questions[0]
        self._left = attempts

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        super().reset(seed=seed)
        chosen = read_options(options, {"index": None}, index=int)
        self._question = question_of(self._questions, chosen["index"], seed, self.np_random)
        self._left = self._attempts
        info: dict[str, Any] = {"goal": self._goal}
        if chosen["gold"]:
            info["gold"] = [self._question.answer]
        return clean(self._question.text), info

    def step(self, action: str) -> tuple[str, SupportsFloat, bool, bool, dict[str, Any]]:
        check_action(action)
        self._left -= 1
        problem = ""
        judged: Any
        try:
            judged = self._verify(action, self._question)
        except Exception as error:  # one answer is judged here, and any text may be an answer
            judged, problem = 0.0, f" ({type(error).__name__}: {error})"
        score = as_score("verify", judged)
        success = score == 1.0
        text = "That is right." if success else f"That is not right{clean(problem, 300)}."
        over = success or self._left <= 0
        if not over:
            text += f" {self._left} attempt{'s' * (self._left != 1)} left."
        info: dict[str, Any] = {"success": success, "score": score}
        if not success:
            info["feedback"] = text
        return text, score, over, False, info


def _check_verifier(verify: Verifier) -> None:
    try:
        inspect.signature(verify).bind("", Question("", ""))
    except TypeError as error:
        raise InvalidValue(f"verify must take an answer and its Question, and {verify!r} does not: {error}") from None
    except ValueError:
        return  # it has no signature to look at


def as_questions(given: object) -> Sequence[Question]:
    """The questions given, or those of the file. Raises `InvalidValue` where there is none."""
    if isinstance(given, str | Path):
        given = read_questions(Path(given))
    if not isinstance(given, Sequence) or not given or not isinstance(given[0], Question):
        form = '[Question("What is 6 times 7?", "42")], or the path of a JSONL file,'
        raise InvalidValue(f"questions={str(given)[:80]}: a list of at least one, such as {form} is needed")
    return given


def question_of(questions: Sequence[Question], index: int | None, seed: int | None, random: Generator) -> Question:
    """Question number ``index``, or the one that the seed asks."""
    if index is None:
        return by_seed(questions, seed, random)
    return questions[checked("index", index, int, low=0, high=len(questions) - 1)]


def read_questions(path: Path) -> list[Question]:
    """The items of a JSONL file. Raises `InvalidValue` with the line that is none."""
    if not path.is_file():
        raise InvalidValue(f"{path}: there is no such file of questions")
    questions = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if line.strip():
            try:
                row = json.loads(line)
                text, answer = row.pop("question"), row.pop("answer")
            except (ValueError, KeyError, AttributeError) as error:
                problem = f'{path}, line {number}: each line is an object like {{"question": "…", "answer": "…"}}'
                raise InvalidValue(f"{problem} ({type(error).__name__}: {error})") from None
            questions.append(Question(str(text), str(answer), row))
    return questions
