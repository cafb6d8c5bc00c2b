"""Models behind OpenAI's chat completions API, at OpenAI or at any server that speaks it."""

from __future__ import annotations

import json
import os
from types import SimpleNamespace
from typing import Any

from agentkit.address import Address
from agentkit.llm.errors import AuthenticationFailed
from agentkit.llm.remote import RemoteLLM, check_network

OPENAI = "https://api.openai.com/v1"


class OpenAILLM(RemoteLLM):
    """``model`` at ``base_url`` (else ``$OPENAI_BASE_URL``, else OpenAI), through the official client.

    The key is ``api_key``, else ``$OPENAI_API_KEY``; a server on another address than OpenAI's may need none. It is
    neither logged nor shown, and neither are a user and password, or a key in the query, of the ``base_url``. For the
    other options see `RemoteLLM`.
    """

    def __init__(
        self,
        model: str,
        *,
        base_url: str | None = None,
        api_key: str | None = None,
        **options: Any,  # those of RemoteLLM
    ) -> None:
        import openai

        from agentkit.llm.transport import http_client

        base_url = base_url or os.environ.get("OPENAI_BASE_URL") or None
        address = Address.of(base_url or OPENAI)
        api_key = (api_key or os.environ.get("OPENAI_API_KEY") or "").strip() or ("" if base_url is None else "none")
        if not api_key:
            raise AuthenticationFailed("there is no key for OpenAI: set OPENAI_API_KEY, or pass api_key=...")
        options.setdefault("limit_field", "max_completion_tokens" if base_url is None else "max_tokens")
        if base_url is not None:
            options.setdefault("price", (0.0, 0.0))
        identity = f"openai/{model}" + (f"@{address.shown}" if base_url else "")
        secrets = [*address.secrets, api_key if api_key != "none" else ""]
        super().__init__(f"openai/{model}", identity=identity, secrets=secrets, **options)
        self.model, self._url = model, address.url
        self._client = openai.OpenAI(
            api_key=api_key,
            base_url=address.url,
            max_retries=0,
            timeout=self.timeout_s,
            http_client=http_client(address, self.timeout_s),
        )

    def send(self, body: dict[str, Any]) -> Any:
        """One request through the official client."""
        import httpx

        check_network(self._url)
        # The plain response: the typed one costs more time than all the rest of a request.
        response = self._client.post("/chat/completions", cast_to=httpx.Response, body={"model": self.model, **body})
        return json.loads(response.content, object_hook=lambda fields: SimpleNamespace(**fields))

    def close(self) -> None:
        """Close the connections."""
        self._client.close()
