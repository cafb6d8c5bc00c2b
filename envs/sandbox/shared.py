"""One sandbox for many environments of a process, ended when the last of them is closed."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence

from agentkit.envs.sandbox.core import Sandbox
from agentkit.envs.sandbox.values import Limits

_lock = threading.Lock()
_shared: dict[object, tuple[Sandbox, int]] = {}


class Lease:
    """A share in the sandbox that all leases with the same settings hold together.

    A lease that is given back takes the idle servers that were started since it was taken with it, so that what an
    environment started ends with it; those that were warm before stay warm for the other leases.
    """

    def __init__(
        self, *, limits: Limits | None = None, packages: Sequence[str] = (), allow_unisolated: bool = False
    ) -> None:
        self._key = (os.getpid(), limits or Limits(), tuple(packages), allow_unisolated)
        with _lock:
            if self._key in _shared:
                sandbox, count = _shared[self._key]
            else:
                sandbox, count = Sandbox(limits=limits, packages=packages, allow_unisolated=allow_unisolated), 0
            _shared[self._key] = (sandbox, count + 1)
            self._warm_before = sandbox.warm()
        self.sandbox = sandbox
        self._open = True

    def close(self) -> None:
        """Give the share back; the last one ends the sandbox. A second call does nothing."""
        with _lock:
            if not self._open:
                return
            self._open = False
            sandbox, count = _shared[self._key]
            if count > 1:
                _shared[self._key] = (sandbox, count - 1)
            else:
                del _shared[self._key]
        if count > 1:
            sandbox.cool(keep=self._warm_before)
        else:
            sandbox.close()
