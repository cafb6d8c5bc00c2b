"""The values that travel between the parts and are stored: frozen, typed, and the same after a trip through JSON.

`dump` and `load` are that trip. Behaviour lives elsewhere (`agentkit.llm`, `agentkit.policy`, …).
"""

from __future__ import annotations

import copy
import functools
import json
import operator
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any, Literal, TypeVar

from agentkit.errors import InvalidValue
from agentkit.memory.records import Recalled

Role = Literal["system", "user", "assistant", "tool"]
T = TypeVar("T")


class Options(Mapping[str, Any]):
    """An immutable, hashable mapping of JSON values (``env.reset`` takes them), equal to a mapping of the same JSON.

    Lists and dicts inside are handed out as copies. Raises `InvalidValue` for what JSON cannot hold.
    """

    __slots__ = ("_canonical", "_data")

    def __init__(self, data: Mapping[str, Any] | None = None) -> None:
        self._canonical = _canonical(data or {})
        self._data: dict[str, Any] = json.loads(self._canonical)

    def __getitem__(self, key: str) -> Any:
        return copy.deepcopy(self._data[key])

    def __eq__(self, other: object) -> bool:
        # By the text, as the hash is: 1, 1.0 and True are equal in Python, and not the same option.
        if isinstance(other, Options):
            return self._canonical == other._canonical
        if not isinstance(other, Mapping):
            return NotImplemented
        try:
            return self._canonical == _canonical(other)
        except InvalidValue:
            return False

    def __iter__(self) -> Iterator[str]:
        return iter(self._data)

    def __len__(self) -> int:
        return len(self._data)

    def __hash__(self) -> int:
        return hash(self._canonical)

    def __repr__(self) -> str:
        return self._canonical

    def __deepcopy__(self, _memo: object) -> Options:
        return self

    def __reduce__(self) -> tuple[type[Options], tuple[dict[str, Any]]]:
        return Options, (self._data,)

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: object, _handler: object) -> Any:  # pydantic's own hook is untyped
        from pydantic_core import core_schema

        return core_schema.no_info_plain_validator_function(lambda v: v if isinstance(v, cls) else cls(v))


def _canonical(data: Mapping[str, Any]) -> str:
    for key in data:
        if not isinstance(key, str):
            raise InvalidValue(f"options have names that are text; {key!r} is not.")
    try:
        return json.dumps(dict(data), sort_keys=True, default=_plain)
    except (TypeError, ValueError) as error:
        raise InvalidValue(f"options hold JSON values only, so that they can be stored: {error}.") from error


@dataclass(frozen=True, slots=True)
class Usage:
    """What model calls cost. ``cached_tokens`` are those of ``prompt_tokens`` that were not computed again."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    cost_usd: float = 0.0
    latency_s: float = 0.0
    calls: int = 0

    @property
    def tokens(self) -> int:
        """Prompt and completion tokens together: what a budget counts."""
        return self.prompt_tokens + self.completion_tokens

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.prompt_tokens + other.prompt_tokens,
            self.cached_tokens + other.cached_tokens,
            self.completion_tokens + other.completion_tokens,
            self.cost_usd + other.cost_usd,
            self.latency_s + other.latency_s,
            self.calls + other.calls,
        )


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a chat."""

    role: Role
    content: str

    def __post_init__(self) -> None:
        if not isinstance(self.content, str):
            raise InvalidValue(f"a message's content is {self.content!r}; it must be a text.")


@dataclass(frozen=True, slots=True)
class Request:
    """One request to a model: all that can change its answer, beside the model itself.

    ``n`` samples are asked for. ``choices`` restricts the answer to one of the given strings, ``schema`` to JSON
    that a JSON schema accepts (at most one of the two). ``adapter`` names a LoRA adapter that the backend has loaded.
    Lists that are given for tuples become such, and a mapping for a schema becomes `Options`.
    """

    messages: tuple[Message, ...]
    n: int = 1
    temperature: float = 1.0
    top_p: float = 1.0
    max_tokens: int = 256
    stop: tuple[str, ...] = ()
    seed: int | None = None
    choices: tuple[str, ...] | None = None
    schema: Options | None = None
    logprobs: bool = False
    adapter: str | None = None

    def __post_init__(self) -> None:
        messages: Any = self.messages  # each may be of another type than it is declared
        stop: Any = self.stop
        choices: Any = self.choices
        schema: Any = self.schema
        if isinstance(messages, str) or not all(isinstance(m, Message) for m in messages):
            raise InvalidValue(f"a request's messages are {messages!r}; give [agentkit.Message('user', 'text')].")
        if isinstance(choices, str):
            raise InvalidValue(f"a request's choices are {choices!r}; give a list of texts.")
        if self.n < 1:
            raise InvalidValue(f"a request asks for n={self.n} samples; it must be at least 1.")
        object.__setattr__(self, "messages", tuple(messages))  # lists have no hash
        object.__setattr__(self, "stop", (stop,) if isinstance(stop, str) else tuple(stop))
        if choices is not None:
            object.__setattr__(self, "choices", tuple(choices))
        if schema is not None and not isinstance(schema, Options):
            object.__setattr__(self, "schema", Options(schema))


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A generated token and its natural-log probability."""

    token: str
    logprob: float


@dataclass(frozen=True, slots=True)
class Completion:
    """One answer of a model. ``finish_reason`` is ``"stop"``, ``"length"`` or ``"refused"``."""

    text: str
    finish_reason: str = "stop"
    usage: Usage = field(default_factory=Usage)
    logprobs: tuple[TokenLogprob, ...] | None = None
    request_hash: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "text", storable(self.text))


@dataclass(frozen=True, slots=True)
class Scores:
    """How likely a model finds each candidate as its answer.

    ``logprobs[i]`` is the natural-log probability of candidate i given the prompt, summed over its ``lengths[i]``
    tokens.
    """

    logprobs: tuple[float, ...]
    lengths: tuple[int, ...]
    usage: Usage = field(default_factory=Usage)
    request_hash: str = ""


@dataclass(frozen=True, slots=True)
class Task:
    """What is to be done: an environment, the arguments of its ``reset``, and a name for it in memory and reports.

    An empty ``goal`` means the one that the environment gives at reset. An empty ``name`` is made of the other fields.
    ``options`` are JSON values; whatever mapping is given, they are kept as `Options`.
    """

    env_id: str
    goal: str = ""
    seed: int = 0
    options: Mapping[str, Any] = field(default_factory=Options)
    name: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.env_id, str):
            raise InvalidValue(f"a task's env_id is {self.env_id!r}; it must be the id of an environment.")
        if not hasattr(self.seed, "__index__") or self.seed < 0:
            raise InvalidValue(f"a task's seed is {self.seed!r}; it must be a whole number of at least 0.")
        object.__setattr__(self, "seed", operator.index(self.seed))  # numpy's whole numbers too
        if not isinstance(self.options, Options):
            object.__setattr__(self, "options", Options(self.options))
        if not self.name:
            parts = [self.env_id, *(f"{k}={v}" for k, v in sorted(self.options.items())), f"seed={self.seed}"]
            object.__setattr__(self, "name", " ".join(parts))


class StopReason(StrEnum):
    """Why an episode ended. A broken episode is data: it stays in every denominator."""

    SUCCESS = "success"
    FAILURE = "failure"
    STEP_LIMIT = "step_limit"
    LOOP = "loop"
    BUDGET = "budget"
    INVALID = "invalid"
    ENV_ERROR = "env_error"
    MODEL_ERROR = "model_error"

    @property
    def broken(self) -> bool:
        """Whether the episode was cut off by something that says nothing of what the agent did."""
        return self in (StopReason.BUDGET, StopReason.ENV_ERROR, StopReason.MODEL_ERROR)


@dataclass(frozen=True, slots=True)
class Action:
    """What an agent does: the text for the environment, the thought behind it, and which recalled records shaped it.

    ``memory_ids`` are the records that were rendered into a prompt or entered the choice; ``logprob`` is the
    natural-log probability with which the policy took this action, where it knows it. ``valid`` is False when the
    model's answer could not be read as an action.
    """

    text: str
    thought: str = ""
    memory_ids: tuple[int, ...] = ()
    logprob: float | None = None
    valid: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "text", _text(self.text))
        object.__setattr__(self, "thought", _text(self.thought))


@dataclass(frozen=True, slots=True)
class Step:
    """One turn: what was seen, what was done, what came of it."""

    observation: str
    action: Action
    reward: float
    next_observation: str
    admissible: tuple[str, ...] | None = None
    feedback: str = ""
    score: float | None = None
    usage: Usage = field(default_factory=Usage)


@dataclass(frozen=True, slots=True)
class Episode:
    """One attempt at a task. ``success`` is what the environment said, and False when it never said so."""

    id: str
    task: Task
    trial: int
    seed: int
    goal: str
    steps: tuple[Step, ...]
    stop_reason: StopReason
    success: bool
    return_: float
    usage: Usage = field(default_factory=Usage)
    error: str = ""

    @property
    def memory_ids(self) -> tuple[int, ...]:
        """The records that shaped any step, in order of first use."""
        return tuple(dict.fromkeys(i for step in self.steps for i in step.action.memory_ids))


@dataclass(frozen=True, slots=True)
class StepJudgement:
    """A critic's word on one step."""

    step: int
    score: float
    critique: str = ""


@dataclass(frozen=True, slots=True)
class Judgement:
    """A critic's word on an episode; ``score`` is in [0, 1]."""

    success: bool
    score: float
    critique: str = ""
    steps: tuple[StepJudgement, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.score <= 1:  # False for NaN too
            raise InvalidValue(f"a judgement's score is in [0, 1]; it was given {self.score!r}.")


@dataclass(frozen=True, slots=True)
class Lesson:
    """What a reflector made of a judgement. ``evidence`` are the ids of the episodes that it was learned from."""

    text: str
    kind: str = "reflection"
    task: str = ""
    evidence: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class View:
    """All that an agent sees before it acts. ``seed`` is this step's own: whatever samples, samples with it."""

    task: Task
    goal: str
    observation: str
    admissible: tuple[str, ...] | None = None
    history: tuple[Step, ...] = ()
    memories: tuple[Recalled, ...] = ()
    lessons: tuple[Recalled, ...] = ()
    skills: tuple[Recalled, ...] = ()
    trial: int = 0
    step: int = 0
    steps_left: int | None = None
    seed: int = 0


@functools.cache
def _adapter(type_: type[Any]) -> Any:  # pydantic is imported only when something is stored
    from pydantic import TypeAdapter

    return TypeAdapter(type_)


def storable(text: str) -> str:
    """``text`` with lone surrogates, which no encoding takes, replaced by U+FFFD."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def _text(value: object) -> str:  # a notebook has no type checker
    if not isinstance(value, str):
        raise InvalidValue(f"an action is text; it was given {value!r}.")
    return storable(value)


def _plain(value: Any) -> Any:
    """What `json` does not know: our own mappings, and numpy's numbers."""
    if isinstance(value, Mapping):
        return dict(value)
    if hasattr(value, "item"):
        return value.item()
    raise TypeError(f"{value!r} of type {type(value).__name__} is no JSON value")


def dump(value: Any) -> str:
    """A value of this module as JSON text (with Python's NaN and Infinity where a float is one)."""
    return storable(json.dumps(asdict(value), default=_plain, ensure_ascii=False))


def load(type_: type[T], text: str | bytes) -> T:
    """The value that `dump` wrote."""
    hashable: Any = type_  # the type checker cannot know that a class is
    result: T = _adapter(hashable).validate_json(text)
    return result
