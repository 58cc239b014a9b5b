"""A request and a script -> what the mock does because of the request: a short answer, a token limit, a tool call."""

import re
from typing import Any

from smai_cli.mock.received import MockRefusal
from smai_cli.mock.script import POEM, Script, error_object, prompt_of, reply_deltas

# The names of the token limit in both APIs.
_TOKEN_LIMITS = ("max_completion_tokens", "max_tokens", "max_output_tokens")
# The model that does not exist.
_NO_MODEL = "no-such-model"
_WORD = re.compile(r"Answer with the (?:digit|word) (\w+) only\.", re.ASCII)
_CHOICES_LIMIT = 128  # as in the API reference


def fit_script(script: Script, request: dict[str, Any]) -> Script:
    """Return the script of the answer to one request, which the request may shorten or turn into a tool call.

    Raises MockRefusal for the model that does not exist.
    """
    if request["model"] == _NO_MODEL:
        raise MockRefusal(404) if "errors" not in script.lies else MockRefusal(200, error_object(404))
    if script.echo:
        script = script.replaced(reply=prompt_of(request))
    elif script.reply == POEM and (word := _WORD.fullmatch(prompt_of(request))):
        script = script.replaced(reply=word[1])
    if request.get("tool_choice") == "required" and (name := _tool_name(request)):
        return script.replaced(tool=name)
    n = request.get("n")
    if isinstance(n, int) and 1 < n <= _CHOICES_LIMIT and "messages" in request:
        script = script.replaced(choices=n)
    return _cut(script, request)


def _cut(script: Script, request: dict[str, Any]) -> Script:
    """Return the script with its reply cut at the token limit of the request."""
    limits = [request[name] for name in _TOKEN_LIMITS if isinstance(request.get(name), int)]
    deltas = reply_deltas(script.reply)
    if not limits or len(deltas) <= limits[0]:
        return script
    lie = "responses" if "input" in request else "limit"
    reason = script.finish_reason if lie in script.lies or script.finish_reason != "stop" else "length"
    return script.replaced(reply="".join(deltas[: limits[0]]), finish_reason=reason)


def _tool_name(request: dict[str, Any]) -> str:
    """Return the name of the first function that a request offers, in either API; empty without one."""
    tools = request.get("tools")
    tool = tools[0] if isinstance(tools, list) and tools else None
    function = tool.get("function", tool) if isinstance(tool, dict) else None
    name = function.get("name") if isinstance(function, dict) else None
    return name if isinstance(name, str) else ""
