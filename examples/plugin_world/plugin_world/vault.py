"""A vault with a code of digits, which tells how many of them are right."""

from __future__ import annotations

from typing import Any

import gymnasium

from agentkit.envs import clean, text_space


class VaultEnv(gymnasium.Env[str, str]):
    """Find the code. An action is a code; the answer tells how many digits are right and in their place."""

    metadata = {"render_modes": []}  # noqa: RUF012

    def __init__(self, digits: int = 3, tries: int = 12) -> None:
        self.observation_space, self.action_space = text_space(), text_space(100)
        self.digits, self.tries = digits, tries

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        super().reset(seed=seed)
        self.code = "".join(str(d) for d in self.np_random.integers(0, 10, self.digits))
        self.left = self.tries
        info: dict[str, Any] = {"goal": f"Open the vault: find its code of {self.digits} digits."}
        if (options or {}).get("gold"):
            info["gold"] = [self.code]
        return f"The vault is closed. You have {self.left} tries.", info

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        self.left -= 1
        said = action.strip()
        info: dict[str, Any] = {"success": said == self.code}
        if info["success"]:
            right, text = self.digits, "The vault opens."
        elif len(said) == self.digits and said.isascii() and said.isdigit():
            right = sum(a == b for a, b in zip(said, self.code, strict=True))
            text = f"{right} of {self.digits} digits are right. {self.left} tries left."
        else:
            right, text = 0, f"A code has {self.digits} digits. {self.left} tries left."
            info["feedback"] = text
        info["score"] = right / self.digits
        return clean(text), float(info["success"]), info["success"] or self.left <= 0, False, info
