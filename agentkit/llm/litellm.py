"""Models of every provider that litellm knows."""

from __future__ import annotations

import os
from typing import Any

from agentkit.llm.errors import AuthenticationFailed, UnknownModel
from agentkit.llm.remote import RemoteLLM, check_network


class LiteLLM(RemoteLLM):
    """``model`` is litellm's name, ``"<provider>/<model>"``; keys come from the provider's environment variables, or
    ``api_key``; ``base_url`` is the server where the provider has several. For the other options see `RemoteLLM`."""

    def __init__(
        self,
        model: str,
        *,
        base_url: str | None = None,
        api_key: str | None = None,
        **options: Any,  # those of RemoteLLM
    ) -> None:
        # Without this, importing litellm fetches its price table over the network.
        os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
        import litellm

        try:
            _, provider, _, _ = litellm.get_llm_provider(model, api_base=base_url)
        except litellm.exceptions.BadRequestError as error:
            raise UnknownModel(f"litellm knows no provider of {model!r}: a name is '<provider>/<model>'") from error
        litellm.suppress_debug_info = True
        identity = f"litellm/{model}" + (f"@{base_url.rstrip('/')}" if base_url else "")
        super().__init__(f"litellm/{model}", identity=identity, secret=api_key or "", **options)
        self.model, self._base_url, self._api_key = model, base_url, api_key
        self._client = self._openai_client() if provider == "openai" else None

    def send(self, body: dict[str, Any]) -> Any:
        """One request through litellm."""
        import litellm

        check_network(self._base_url)
        return litellm.completion(
            model=self.model,
            api_base=self._base_url,
            api_key=self._api_key,
            timeout=self.timeout_s,
            num_retries=0,
            max_retries=0,
            client=self._client,
            **body,
        )

    def _openai_client(self) -> Any:
        """The client that litellm uses for OpenAI's protocol, with connections made for hundreds of threads."""
        import openai

        from agentkit.llm.transport import http_client

        key = (self._api_key or os.environ.get("OPENAI_API_KEY") or "").strip()
        key = key or ("" if self._base_url is None else "none")
        if not key:
            raise AuthenticationFailed("there is no key for OpenAI: set OPENAI_API_KEY, or pass api_key=...")
        self._api_key = self._secret = key
        http = http_client(self._base_url or "https://api.openai.com", self.timeout_s)
        return openai.OpenAI(api_key=key, base_url=self._base_url, max_retries=0, http_client=http)
