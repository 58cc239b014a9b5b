"""How common servers really end a stream, with the exit status of each ending.

streams/servers/SOURCES.md lists the sources; smai-servers(7) is the documentation for users.
"""

from pathlib import Path
from typing import NamedTuple

SERVER_STREAMS = Path(__file__).parents[1] / "streams" / "servers"


class ServerTape(NamedTuple):
    """A file in streams/servers/, its server, and its exit status.

    `how` it ends: well, limit, tool call, filtered, error, cut, or odd. `status` and `text` are those of `smai decode`.
    `needs_body_end`: only the end of the HTTP body, which a tape does not contain, makes the answer complete.
    """

    name: str
    server: str
    how: str
    dialect: str
    status: int
    text: str
    needs_body_end: bool = False

    @property
    def bytes(self) -> bytes:
        return (SERVER_STREAMS / f"{self.name}.sse").read_bytes()

    @property
    def http_status(self) -> int:
        """The exit status if these bytes are a complete HTTP body."""
        return 0 if self.needs_body_end else self.status


_WHOLE = "Tea first."
_PART = "Tea "
SERVER_TAPES = [
    ServerTape("openai-well", "OpenAI", "well", "chat", 0, _WHOLE),
    ServerTape("openai-limit", "OpenAI", "limit", "chat", 9, _PART),
    ServerTape("openai-tool-call", "OpenAI", "tool call", "chat", 0, ""),
    ServerTape("openai-function-call", "OpenAI", "tool call", "chat", 0, ""),
    ServerTape("openai-refusal", "OpenAI", "filtered", "chat", 10, ""),
    ServerTape("openai-error", "OpenAI", "error", "chat", 8, _PART),
    ServerTape("openai-cut", "OpenAI", "cut", "chat", 8, _PART),
    ServerTape("openai-responses-well", "OpenAI", "well", "responses", 0, _WHOLE),
    ServerTape("openai-responses-limit", "OpenAI", "limit", "responses", 9, _PART),
    ServerTape("openai-responses-filtered", "OpenAI", "filtered", "responses", 10, _PART),
    ServerTape("openai-responses-tool-call", "OpenAI", "tool call", "responses", 0, ""),
    ServerTape("openai-responses-refusal", "OpenAI", "filtered", "responses", 10, ""),
    ServerTape("openai-responses-failed", "OpenAI", "error", "responses", 8, _PART),
    ServerTape("openai-responses-error", "OpenAI", "error", "responses", 8, _PART),
    ServerTape("openai-responses-cut", "OpenAI", "cut", "responses", 8, _PART),
    ServerTape("azure-well", "Azure OpenAI", "well", "chat", 0, _WHOLE),
    ServerTape("azure-filtered", "Azure OpenAI", "filtered", "chat", 10, _PART),
    ServerTape("azure-async-well", "Azure OpenAI", "well", "chat", 0, _WHOLE),
    ServerTape("azure-async-filtered", "Azure OpenAI", "filtered", "chat", 10, _WHOLE),
    ServerTape("openrouter-well", "OpenRouter", "well", "chat", 0, _WHOLE),
    ServerTape("openrouter-limit", "OpenRouter", "limit", "chat", 9, _PART),
    ServerTape("openrouter-tool-call", "OpenRouter", "tool call", "chat", 0, ""),
    ServerTape("openrouter-refusal", "OpenRouter", "filtered", "chat", 10, ""),
    ServerTape("openrouter-error", "OpenRouter", "error", "chat", 8, _PART),
    ServerTape("openrouter-error-in-choice", "OpenRouter", "error", "chat", 8, _PART),
    ServerTape("openrouter-network-error", "OpenRouter", "error", "chat", 8, _PART),
    ServerTape("groq-well", "Groq", "well", "chat", 0, _WHOLE),
    ServerTape("groq-limit", "Groq", "limit", "chat", 9, _PART),
    ServerTape("groq-tool-call", "Groq", "tool call", "chat", 0, ""),
    ServerTape("groq-error", "Groq", "error", "chat", 8, _PART),
    ServerTape("groq-error-object", "Groq", "error", "chat", 8, _PART),
    ServerTape("together-well", "Together", "well", "chat", 0, _WHOLE),
    ServerTape("together-stop", "Together", "well", "chat", 0, _WHOLE),
    ServerTape("together-one-chunk", "Together", "well", "chat", 0, _WHOLE),
    ServerTape("together-limit", "Together", "limit", "chat", 9, _WHOLE),
    ServerTape("together-tool-call", "Together", "tool call", "chat", 0, ""),
    ServerTape("fireworks-cut", "Fireworks", "cut", "chat", 8, ""),
    ServerTape("deepseek-well", "DeepSeek", "well", "chat", 0, _WHOLE),
    ServerTape("deepseek-reasoning", "DeepSeek", "well", "chat", 0, _WHOLE),
    ServerTape("deepseek-limit", "DeepSeek", "limit", "chat", 9, _PART),
    ServerTape("deepseek-tool-call", "DeepSeek", "tool call", "chat", 0, ""),
    ServerTape("deepseek-filtered", "DeepSeek", "filtered", "chat", 10, _PART),
    ServerTape("deepseek-resources", "DeepSeek", "error", "chat", 8, _PART),
    ServerTape("deepseek-closed", "DeepSeek", "cut", "chat", 8, ""),
    ServerTape("moonshot-well", "Moonshot (Kimi)", "well", "chat", 0, _WHOLE),
    ServerTape("moonshot-limit", "Moonshot (Kimi)", "limit", "chat", 9, _PART),
    ServerTape("zhipu-well", "Zhipu (GLM)", "well", "chat", 0, _WHOLE),
    ServerTape("zhipu-limit", "Zhipu (GLM)", "limit", "chat", 9, _PART),
    ServerTape("zhipu-tool-call", "Zhipu (GLM)", "tool call", "chat", 0, ""),
    ServerTape("zhipu-sensitive", "Zhipu (GLM)", "filtered", "chat", 10, _PART),
    ServerTape("zhipu-network-error", "Zhipu (GLM)", "error", "chat", 8, _PART),
    ServerTape("zhipu-context", "Zhipu (GLM)", "limit", "chat", 8, _PART),
    ServerTape("dashscope-well", "DashScope (Qwen)", "well", "chat", 0, _WHOLE),
    ServerTape("dashscope-limit", "DashScope (Qwen)", "limit", "chat", 9, _PART),
    ServerTape("dashscope-tool-call", "DashScope (Qwen)", "tool call", "chat", 0, ""),
    ServerTape("dashscope-inspected", "DashScope (Qwen)", "error", "chat", 8, _PART),
    ServerTape("mistral-well", "Mistral", "well", "chat", 0, _WHOLE),
    ServerTape("mistral-limit", "Mistral", "limit", "chat", 9, _WHOLE),
    ServerTape("mistral-tool-call", "Mistral", "tool call", "chat", 0, ""),
    ServerTape("mistral-thinking", "Mistral", "well", "chat", 0, _WHOLE),
    ServerTape("mistral-error", "Mistral", "error", "chat", 8, _PART),
    ServerTape("mistral-model-length", "Mistral", "limit", "chat", 9, _PART),
    ServerTape("perplexity-well", "Perplexity", "well", "chat", 0, _WHOLE),
    ServerTape("perplexity-limit", "Perplexity", "limit", "chat", 9, _PART),
    ServerTape("perplexity-cut", "Perplexity", "cut", "chat", 8, _PART),
    ServerTape("gemini-well", "Gemini", "well", "chat", 0, _WHOLE),
    ServerTape("gemini-one-chunk", "Gemini", "well", "chat", 0, _WHOLE),
    ServerTape("gemini-tool-call", "Gemini", "tool call", "chat", 0, ""),
    ServerTape("gemini-no-reason", "Gemini", "odd", "chat", 0, _WHOLE),
    ServerTape("gemini-error-array", "Gemini", "error", "chat", 4, ""),
    ServerTape("ollama-well", "Ollama", "well", "chat", 0, _WHOLE),
    ServerTape("ollama-limit", "Ollama", "limit", "chat", 9, _PART),
    ServerTape("ollama-tool-call", "Ollama", "tool call", "chat", 0, ""),
    ServerTape("ollama-old-well", "Ollama", "well", "chat", 0, _WHOLE),
    ServerTape("ollama-error", "Ollama", "error", "chat", 8, _PART),
    ServerTape("llamacpp-well", "llama.cpp", "well", "chat", 0, _WHOLE),
    ServerTape("llamacpp-limit", "llama.cpp", "limit", "chat", 9, _PART),
    ServerTape("llamacpp-tool-call", "llama.cpp", "tool call", "chat", 0, ""),
    ServerTape("llamacpp-old-error", "llama.cpp", "error", "chat", 8, _PART),
    ServerTape("llamacpp-old-refused", "llama.cpp", "error", "chat", 4, ""),
    ServerTape("llamacpp-error", "llama.cpp", "error", "chat", 8, _PART),
    ServerTape("llamacpp-cut", "llama.cpp", "cut", "chat", 8, _PART),
    ServerTape("vllm-well", "vLLM", "well", "chat", 0, _WHOLE),
    ServerTape("vllm-last-text", "vLLM", "well", "chat", 0, _WHOLE),
    ServerTape("vllm-limit", "vLLM", "limit", "chat", 9, _WHOLE),
    ServerTape("vllm-one-token", "vLLM", "limit", "chat", 9, _PART),
    ServerTape("vllm-tool-call", "vLLM", "tool call", "chat", 0, ""),
    ServerTape("vllm-error", "vLLM", "error", "chat", 8, _PART),
    ServerTape("vllm-abort", "vLLM", "cut", "chat", 8, _PART),
    ServerTape("vllm-repetition", "vLLM", "odd", "chat", 8, "Tea Tea "),
    ServerTape("sglang-well", "SGLang", "well", "chat", 0, _WHOLE),
    ServerTape("sglang-limit", "SGLang", "limit", "chat", 9, _PART),
    ServerTape("sglang-tool-call", "SGLang", "tool call", "chat", 0, ""),
    ServerTape("sglang-abort", "SGLang", "cut", "chat", 8, _PART),
    ServerTape("sglang-error", "SGLang", "error", "chat", 8, _PART),
    ServerTape("sglang-cut", "SGLang", "cut", "chat", 8, _PART),
    ServerTape("lmstudio-error", "LM Studio", "error", "chat", 8, ""),
    ServerTape("lmstudio-empty", "LM Studio", "odd", "chat", 0, ""),
    ServerTape("tgi-well", "TGI", "well", "chat", 0, _WHOLE),
    ServerTape("tgi-limit", "TGI", "limit", "chat", 9, _WHOLE),
    ServerTape("tgi-stop-sequence", "TGI", "well", "chat", 0, _WHOLE),
    ServerTape("tgi-tool-call", "TGI", "tool call", "chat", 8, ""),
    ServerTape("tgi-error", "TGI", "error", "chat", 8, _PART),
    ServerTape("fastchat-well", "FastChat", "well", "chat", 0, _WHOLE),
    ServerTape("fastchat-limit", "FastChat", "limit", "chat", 9, _PART),
    ServerTape("fastchat-error", "FastChat", "error", "chat", 8, _PART),
    ServerTape("litellm-well", "LiteLLM", "well", "chat", 0, _WHOLE),
    ServerTape("litellm-every-stop", "LiteLLM", "odd", "chat", 0, _WHOLE),
    ServerTape("litellm-error", "LiteLLM", "error", "chat", 8, _PART),
    ServerTape("litellm-cut", "LiteLLM", "cut", "chat", 8, _PART),
    ServerTape("litellm-own-stop", "LiteLLM", "odd", "chat", 0, _PART),
    ServerTape("litellm-responses-well", "LiteLLM", "well", "responses", 0, _WHOLE),
    ServerTape("litellm-responses-failed", "LiteLLM", "error", "responses", 8, _PART),
    ServerTape("litellm-responses-error", "LiteLLM", "error", "responses", 8, _PART),
    ServerTape("one-api-well", "one-api", "well", "chat", 0, _WHOLE),
    ServerTape("one-api-cut", "one-api", "cut", "chat", 8, _PART),
    ServerTape("one-api-half-event", "one-api", "cut", "chat", 8, _PART),
    ServerTape("one-api-gemini", "one-api", "odd", "chat", 8, _WHOLE),
    ServerTape("one-api-gemini-old", "one-api", "odd", "chat", 0, _WHOLE),
    ServerTape("one-api-one-chunk", "one-api", "well", "chat", 0, _WHOLE),
    ServerTape("new-api-well", "new-api", "well", "chat", 0, _WHOLE),
    ServerTape("new-api-cut", "new-api", "cut", "chat", 8, _PART),
    ServerTape("gcli2api-well", "gcli2api", "well", "chat", 0, _WHOLE),
    ServerTape("gcli2api-thinking", "gcli2api", "well", "chat", 0, _WHOLE),
    ServerTape("gcli2api-tool-call", "gcli2api", "tool call", "chat", 0, ""),
    ServerTape("gcli2api-limit", "gcli2api", "limit", "chat", 9, _WHOLE),
    ServerTape("gcli2api-cut", "gcli2api", "cut", "chat", 8, _PART, needs_body_end=True),
    ServerTape("gcli2api-error", "gcli2api", "error", "chat", 8, "Error: no candidates"),
    ServerTape("gcli2api-error-object", "gcli2api", "error", "chat", 8, _PART),
    ServerTape("minimax-well", "MiniMax", "well", "chat", 0, _WHOLE),
    ServerTape("minimax-warning", "MiniMax", "well", "chat", 0, _WHOLE),
    ServerTape("minimax-limit", "MiniMax", "limit", "chat", 9, _PART),
    ServerTape("minimax-one-chunk", "MiniMax", "odd", "chat", 8, _WHOLE, needs_body_end=True),
    ServerTape("minimax-balance", "MiniMax", "error", "chat", 5, ""),
    ServerTape("venice-error", "Venice", "error", "chat", 4, ""),
    ServerTape("databricks-no-reason", "Databricks", "odd", "chat", 8, _WHOLE),
    ServerTape("apertis-well", "Apertis", "well", "chat", 0, _WHOLE),
    ServerTape("bedrock-filtered", "Amazon Bedrock", "filtered", "chat", 10, _PART),
    ServerTape("cline-well", "Cline", "well", "chat", 0, _WHOLE),
    ServerTape("ucloud-well", "UCloud", "well", "chat", 0, _WHOLE),
    ServerTape("localai-well", "LocalAI", "well", "chat", 0, _WHOLE),
    ServerTape("codebuddy-tool-call", "CodeBuddy", "tool call", "chat", 0, ""),
]
SERVERS = list(dict.fromkeys(tape.server for tape in SERVER_TAPES))
