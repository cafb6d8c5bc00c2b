"""Models of every provider that litellm knows."""

from __future__ import annotations

import os
from typing import Any

from agentkit.address import Address
from agentkit.llm.errors import AuthenticationFailed, UnknownModel
from agentkit.llm.openai import OPENAI
from agentkit.llm.remote import RemoteLLM, check_network


class LiteLLM(RemoteLLM):
    """``model`` is litellm's name, ``"<provider>/<model>"``; keys come from the provider's environment variables, or
    ``api_key``; ``base_url`` is the server where the provider has several. A user and password, or a key in the query,
    of the ``base_url`` are sent and not shown. For the other options see `RemoteLLM`."""

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

        address = Address.of(base_url) if base_url else None
        try:
            _, provider, _, _ = litellm.get_llm_provider(model, api_base=base_url)
        except litellm.exceptions.BadRequestError as error:
            raise UnknownModel(f"litellm knows no provider of {model!r}: a name is '<provider>/<model>'") from error
        litellm.suppress_debug_info = True
        identity = f"litellm/{model}" + (f"@{address.shown}" if address else "")
        secrets = [*(address.secrets if address else ()), api_key or ""]
        super().__init__(f"litellm/{model}", identity=identity, secrets=secrets, **options)
        self.model, self._api_key = model, api_key
        self._url = address.url if address else None
        # litellm's own clients are told all of it; ours adds user, password and query itself.
        self._api_base = self._url if provider == "openai" else base_url
        self._client = self._openai_client(address) if provider == "openai" else None

    def send(self, body: dict[str, Any]) -> Any:
        """One request through litellm."""
        import litellm

        check_network(self._url)
        return litellm.completion(
            model=self.model,
            api_base=self._api_base,
            api_key=self._api_key,
            timeout=self.timeout_s,
            num_retries=0,
            max_retries=0,
            client=self._client,
            **body,
        )

    def _openai_client(self, address: Address | None) -> Any:
        """The client that litellm uses for OpenAI's protocol, with connections made for hundreds of threads."""
        import openai

        from agentkit.llm.transport import http_client

        key = (self._api_key or os.environ.get("OPENAI_API_KEY") or "").strip()
        key = key or ("" if address is None else "none")
        if not key:
            raise AuthenticationFailed("there is no key for OpenAI: set OPENAI_API_KEY, or pass api_key=...")
        address = address or Address.of(os.environ.get("OPENAI_BASE_URL") or OPENAI)
        self._api_key, self._secrets = key, (*address.secrets, key if key != "none" else "")
        http = http_client(address, self.timeout_s)
        return openai.OpenAI(api_key=key, base_url=address.url, max_retries=0, http_client=http)
