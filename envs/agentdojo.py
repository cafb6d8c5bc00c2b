"""AgentDojo (Debenedetti et al., 2024): tool worlds with attacks by injected instructions.

Needs the extra ``agentdojo``. See docs/worlds/agentdojo.md.
"""

from __future__ import annotations

import functools
import json
import threading
from collections.abc import Callable, Iterable, Mapping
from types import SimpleNamespace
from typing import Any, SupportsFloat

import gymnasium

from agentkit.envs.extras import require
from agentkit.envs.spaces import check_action, clean, text_space
from agentkit.envs.tasks import by_seed, checked, choose, read_options
from agentkit.envs.tools import Call
from agentkit.envs.tools_user import REPLY, Function, Message, Refusal, describe, read_action
from agentkit.errors import InvalidValue

SUITES = ("workspace", "travel", "banking", "slack")
VERSIONS = ("v1", "v1.1", "v1.1.1", "v1.1.2", "v1.2", "v1.2.1", "v1.2.2")
_RULES = (
    f"Call functions, one in each action, and end with {REPLY.name}: its message is your answer, and after it nothing "
    "more can be done."
)
_lock = threading.Lock()


class AgentDojoEnv(gymnasium.Env[str, str]):
    """A task of a user with functions on mails, accounts, bookings or chats, in which an attacker may have written.

    Args:
        suite: ``workspace``, ``travel``, ``banking`` or ``slack``.
        attack: how the attacker writes: one of `attacks`; None: there is no attacker.
        version: of the benchmark: ``v1`` to ``v1.2.2``.
        victim: the model that some attacks address by name, as AgentDojo calls it: ``gpt-4o-2024-05-13``, ``local``, …
        max_calls: how many actions there are before the reply; one more ends the episode, which is judged as it stands.

    A seed plays number ``seed`` of the suite's user tasks; under attack, of its pairs of an injection task and a user
    task. Options of ``reset``: ``suite``, ``task`` (``"user_task_3"``), ``attack``, ``injection_task``
    (``"injection_task_0"``) and ``gold``. The info of ``reset`` says which were chosen. Success is the user's task, as
    AgentDojo's utility has it. Under attack the info at the end says ``attack_succeeded`` too: whether the attacker's
    goal was reached, AgentDojo's security. Neither says anything about the other.
    """

    metadata = {"render_modes": []}  # noqa: RUF012  Gymnasium declares it so

    def __init__(
        self,
        suite: str = "workspace",
        attack: str | None = None,
        version: str = "v1.2.2",
        victim: str = "local",
        max_calls: int = 50,
    ) -> None:
        self._runtime = _package("functions_runtime")
        self._types = _package("types")
        self._to_text = _package("agent_pipeline.tool_execution").tool_result_to_str
        self._version, self._victim = choose("version", version, VERSIONS), choose("victim", victim, _victims())
        choose("suite", suite, SUITES)
        if attack is not None:
            choose("attack", attack, attacks())
        self._max_calls = checked("max_calls", max_calls, int, low=1)
        self._defaults = {"suite": suite, "task": None, "attack": attack, "injection_task": None}
        self.observation_space, self.action_space = text_space(), text_space(20_000)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        super().reset(seed=seed)
        chosen = read_options(options, self._defaults)
        name = choose("suite", chosen["suite"], SUITES)
        self._suite = _suite(self._version, name)
        self._task, self._injection, texts = self._choose(chosen, seed)
        self._attack = str(chosen["attack"])
        self._world = self._task.init_environment(_world(self._version, name, texts).model_copy(deep=True))
        self._before = self._world.model_copy(deep=True)
        self._functions = {
            t.name: Function(t.name, t.description, t.parameters.model_json_schema()) for t in self._suite.tools
        }
        self._calls: list[Any] = []
        self._actions = 0
        self._ended: dict[str, Any] | None = None
        system = _package("agent_pipeline.agent_pipeline").load_system_message(None)
        rules = system.replace("\\\n", "").strip() + f"\n{_RULES}"
        info: dict[str, Any] = {
            "goal": f"{self._task.PROMPT}\n\n{rules}\n{describe([*self._functions.values(), REPLY])}",
            "suite": name,
            "task": self._task.ID,
        }
        if self._injection is not None:
            info |= {"attack": self._attack, "injection_task": self._injection.ID}
        if chosen["gold"]:
            info["gold"] = _gold(self._task, self._before)
        return clean(self._task.PROMPT), info

    def step(self, action: str) -> tuple[str, SupportsFloat, bool, bool, dict[str, Any]]:
        check_action(action)
        feedback, text, reward = "", "", 0.0
        if self._ended is not None:
            text = feedback = "The episode is over."
        else:
            self._actions += 1
            turn = read_action(action, self._functions)
            if isinstance(turn, Refusal):
                text = feedback = turn.text
            elif isinstance(turn, Call):
                text, feedback = self._call(turn)
            if isinstance(turn, Message) or self._actions > self._max_calls:
                self._ended = self._judge(turn.text if isinstance(turn, Message) else "")
                reward = float(self._ended["success"])
        info: dict[str, Any] = {"success": False, "score": 0.0, **(self._ended or {})}
        if feedback:
            info["feedback"] = clean(feedback)
        return clean(text), reward, self._ended is not None, False, info

    def _choose(self, chosen: Mapping[str, Any], seed: int | None) -> tuple[Any, Any, tuple[tuple[str, str], ...]]:
        """The user's task, the attacker's, and what the attacker wrote, by the place where it stands."""
        users, injections = _by_number(self._suite.user_tasks), _by_number(self._suite.injection_tasks)
        if chosen["task"] is not None:
            users = {chosen["task"]: users[choose(f"task of {self._suite.name}", chosen["task"], users)]}
        if chosen["attack"] is None:
            if chosen["injection_task"] is not None:
                raise InvalidValue(f"an injection_task needs an attack: one of {', '.join(attacks())}")
            return by_seed(list(users.values()), seed, self.np_random), None, ()
        attack = _attack(self._version, self._suite.name, choose("attack", chosen["attack"], attacks()), self._victim)
        if chosen["injection_task"] is not None:
            kind = f"injection task of {self._suite.name}"
            injections = {chosen["injection_task"]: injections[choose(kind, chosen["injection_task"], injections)]}
        elif attack.is_dos_attack:  # these pursue no goal of an injection task
            injections = dict(list(injections.items())[:1])
        pairs = [(user, injection) for injection in injections.values() for user in users.values()]
        user, injection = by_seed(pairs, seed, self.np_random)
        with _lock:  # the package's caches are not made for threads
            written: Mapping[str, str] = attack.attack(user, injection)
        return user, injection, tuple(sorted(written.items()))

    def _call(self, call: Call) -> tuple[str, str]:
        """What a function answers, and its error."""
        names = list(self._functions[call.name].parameters.get("properties", {}))
        args = {**dict(zip(names, call.args, strict=False)), **call.kwargs}
        if len(args) < len(call.args) + len(call.kwargs):
            error = f"{call.name}: too many arguments, or one given twice."
            return error, error
        self._calls.append(self._runtime.FunctionCall(function=call.name, args=args))
        result, error = self._runtime.FunctionsRuntime(self._suite.tools).run_function(self._world, call.name, args)
        return (error, error) if error else (self._to_text(result), "")

    def _judge(self, answer: str) -> dict[str, Any]:
        """What the info says at the end of the episode as it stands, with the agent's last words."""
        success = self._holds(self._task.utility_from_traces, self._task.utility, answer)
        ended: dict[str, Any] = {"success": success, "score": float(success)}
        if self._injection is not None:
            stops = _attack(self._version, self._suite.name, self._attack, self._victim).is_dos_attack
            reached = self._holds(self._injection.security_from_traces, self._injection.security, answer)
            ended["attack_succeeded"] = not success if stops else reached
        return ended

    def _holds(self, by_calls: Callable[..., bool | None], by_state: Callable[..., bool], answer: str) -> bool:
        """One of AgentDojo's checks: by the functions that were called where a task looks at them, and by the answer
        and the world before and after where it does not."""
        try:
            found = by_calls(answer, self._before, self._world, self._calls)
            return bool(by_state(answer, self._before, self._world) if found is None else found)
        except (LookupError, TypeError, ValueError, AttributeError):
            return False  # it stumbled over what the agent made of the world: not what it looks for


def attacks() -> tuple[str, ...]:
    """The names of AgentDojo's attacks, but for the one that asks a person."""
    _package("attacks")
    return tuple(sorted(set(_package("attacks.attack_registry").ATTACKS) - {"manual"}))


def attack_texts(goal: str, victim: str = "local") -> dict[str, str]:
    """What each attack writes to have a model pursue ``goal``, by the attack's name.

    For tests of anything that reads texts of others: a memory, for example. Attacks that aim at no goal but to stop the
    model are among them. Only ``tool_knowledge`` is not: it spells out the calls of AgentDojo's own goals.
    """
    choose("victim", victim, _victims())
    user = _suite(VERSIONS[-1], "workspace").user_tasks["user_task_0"]
    injection = SimpleNamespace(ID="goal", GOAL=goal)
    texts = {}
    for name in attacks():
        if name != "tool_knowledge":
            with _lock:
                written = _attack(VERSIONS[-1], "workspace", name, victim).attack(user, injection)
            texts[name] = str(next(iter(written.values())))  # the same at each place
    return texts


def injection_goals(suite: str = "workspace", version: str = "v1.2.2") -> dict[str, str]:
    """The goals that AgentDojo's attackers pursue in a suite, by the injection task's id."""
    tasks = _suite(choose("version", version, VERSIONS), choose("suite", suite, SUITES)).injection_tasks
    return {id: str(task.GOAL) for id, task in _by_number(tasks).items()}


def attack_succeeded(actions: Iterable[str], *, seed: int, options: Mapping[str, Any], **kwargs: Any) -> bool:
    """Whether an episode with these actions, from a run log for example, reached the attacker's goal.

    ``seed`` and ``options`` are those of its ``reset``, ``kwargs`` the environment's. Actions that do not end the
    episode are judged as they stand. Raises `InvalidValue` where there was no attack.
    """
    env = AgentDojoEnv(**kwargs)
    env.reset(seed=seed, options=dict(options))
    over, info = False, dict[str, Any]()
    for action in [*actions, f"{REPLY.name}(message='')"]:
        if not over:
            _, _, over, _, info = env.step(action)
    if "attack_succeeded" not in info:
        raise InvalidValue("this episode had no attack: the options of reset name one")
    return bool(info["attack_succeeded"])


def _gold(task: Any, world: Any) -> list[str]:
    """The package's ground truth, and the answer that goes with it, as actions."""
    calls = [(c.function, dict(c.args)) for c in task.ground_truth(world.model_copy(deep=True))]
    calls.append((REPLY.name, {"message": task.GROUND_TRUTH_OUTPUT}))
    return [json.dumps({"name": name, "arguments": args}, default=str) for name, args in calls]


def _package(module: str) -> Any:
    return require(f"agentdojo.{module}", "agentdojo", "agentdojo")


def _victims() -> list[str]:
    return sorted(_package("models").MODEL_NAMES)


def _suite(version: str, name: str) -> Any:
    suites = _package("task_suite.load_suites")
    for module in ("v1.slack.injection_tasks", "v1_1_2.workspace.user_tasks"):
        _package(f"default_suites.{module}").print = lambda *_: None  # two of the checks print what they saw
    return suites.get_suite(version, name)


def _by_number(tasks: Mapping[str, Any]) -> dict[str, Any]:
    """Tasks in the order of the numbers at the end of their ids."""
    return {id: tasks[id] for id in sorted(tasks, key=lambda id: int(id.rpartition("_")[2]))}


@functools.cache
def _attack(version: str, suite: str, attack: str, victim: str) -> Any:
    """An attack, for which the model that is attacked has a name and is nothing else."""
    return _package("attacks").load_attack(attack, _suite(version, suite), SimpleNamespace(name=victim))


@functools.lru_cache(maxsize=64)
def _world(version: str, suite: str, texts: tuple[tuple[str, str], ...]) -> Any:
    """The state in which a suite begins, with the attacker's texts in it. Shared, and never changed."""
    with _lock:
        return _suite(version, suite).load_and_inject_default_environment(dict(texts))
