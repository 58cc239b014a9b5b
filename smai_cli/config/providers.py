"""The built-in profiles: a name for a server, and the variable in which its users export the key.

Each row names the provider's page that it was taken from (read in November 2026).
"""

from collections.abc import Mapping
from typing import NamedTuple


class Provider(NamedTuple):
    """A built-in profile.

    `key_env` is the variable with the key, None for a server that needs none; it is used only for the origin of
    `base_url`. `model` is the default model, None if the user has to name one. `source` is the page with both.
    `list_key_header` and `list_headers` are for GET /models, if that does not accept `Authorization: Bearer`.
    """

    name: str
    base_url: str
    key_env: str | None
    source: str
    model: str | None = None
    list_key_header: str | None = None
    list_headers: tuple[tuple[str, str], ...] = ()


_ROWS = (
    Provider(
        "openai",
        "https://api.openai.com/v1",
        "OPENAI_API_KEY",
        "https://platform.openai.com/docs/api-reference",
        model="gpt-4.1",
    ),
    Provider(
        "anthropic",
        "https://api.anthropic.com/v1",
        "ANTHROPIC_API_KEY",
        "https://platform.claude.com/docs/en/api/openai-sdk",
        # The list is part of Anthropic's own API: https://docs.anthropic.com/en/api/models-list
        list_key_header="x-api-key",
        list_headers=(("anthropic-version", "2023-06-01"),),
    ),
    Provider(
        "gemini",
        "https://generativelanguage.googleapis.com/v1beta/openai",
        "GEMINI_API_KEY",
        "https://ai.google.dev/gemini-api/docs/openai",
    ),
    Provider("groq", "https://api.groq.com/openai/v1", "GROQ_API_KEY", "https://console.groq.com/docs/openai"),
    Provider(
        "mistral",
        "https://api.mistral.ai/v1",
        "MISTRAL_API_KEY",
        "https://docs.mistral.ai/inference/quickstarts/send-your-first-request",
    ),
    Provider("deepseek", "https://api.deepseek.com", "DEEPSEEK_API_KEY", "https://api-docs.deepseek.com/"),
    Provider(
        "openrouter",
        "https://openrouter.ai/api/v1",
        "OPENROUTER_API_KEY",
        "https://openrouter.ai/docs/community/openai-sdk",
    ),
    Provider("xai", "https://api.x.ai/v1", "XAI_API_KEY", "https://docs.x.ai/docs/api-reference"),
    Provider(
        "together",
        "https://api.together.ai/v1",
        "TOGETHER_API_KEY",
        "https://docs.together.ai/docs/inference/openai-compatibility",
    ),
    Provider(
        "fireworks",
        "https://api.fireworks.ai/inference/v1",
        "FIREWORKS_API_KEY",
        "https://docs.fireworks.ai/tools-sdks/openai-compatibility",
    ),
    Provider(
        "cerebras",
        "https://api.cerebras.ai/v1",
        "CEREBRAS_API_KEY",
        "https://inference-docs.cerebras.ai/resources/openai",
    ),
    Provider("ollama", "http://localhost:11434/v1", None, "https://docs.ollama.com/api/openai-compatibility"),
    Provider("lmstudio", "http://localhost:1234/v1", None, "https://lmstudio.ai/docs/developer/openai-compat"),
    Provider(
        "llamacpp",
        "http://localhost:8080/v1",
        None,
        "https://github.com/ggml-org/llama.cpp/blob/master/tools/server/README.md",
    ),
    Provider(
        "vllm",
        "http://localhost:8000/v1",
        None,
        "https://docs.vllm.ai/en/latest/serving/openai_compatible_server.html",
    ),
)
# The built-in profiles by name, in the order in which they are listed.
PROVIDERS: Mapping[str, Provider] = {row.name: row for row in _ROWS}


def provider_with_key(environ: Mapping[str, str]) -> Provider | None:
    """Return the first provider whose variable is set, None if none is."""
    return next((row for row in _ROWS if row.key_env and environ.get(row.key_env, "").strip()), None)
