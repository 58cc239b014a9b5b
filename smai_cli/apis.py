"""The APIs that smai speaks: one row for each, and nothing else of smai lists them.

To add one, write a row here, the module of its dialect in stream/dialects, and the events with which the mock answers.
"""

from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatchcase
from types import ModuleType
from typing import Any, NamedTuple

# In place of a name: the API that the model's name chooses.
AUTO = "auto"


class Api(NamedTuple):
    """One API.

    `name` is that of --api, `path` that of its requests below the base URL. `prompt_member` is the member of a request
    that holds the prompt. `models` are patterns (fnmatch) of the models that are asked in it by default. `has_sent`
    takes an event, or a whole answer, and the event's name; it returns whether only this API sends such a thing. `load`
    imports the dialect: a module as `stream.pump.Dialect` describes it.
    """

    name: str
    path: str
    prompt_member: str
    models: tuple[str, ...]
    has_sent: Callable[[Mapping[str, Any], str], bool]
    load: Callable[[], ModuleType]


def _load_chat() -> ModuleType:
    # Each import is written out, for programs that follow imports: mypy, and packagers such as PyInstaller.
    import smai_cli.stream.dialects.chat as dialect

    return dialect


def _load_responses() -> ModuleType:
    import smai_cli.stream.dialects.responses as dialect

    return dialect


def _is_of_responses(payload: Mapping[str, Any], name: str) -> bool:
    kinds = (payload.get("type"), name)
    return payload.get("object") == "response" or any(str(kind).startswith("response.") for kind in kinds)


CHAT = Api("chat", "/chat/completions", "messages", (), lambda payload, name: False, _load_chat)  # noqa: ARG005
RESPONSES = Api(
    "responses",
    "/responses",
    "input",
    # The models that OpenAI's documentation sends to /responses, because /chat/completions refuses them.
    ("gpt-5*-pro*", "o1-mini*", "o1-pro*", "o3-mini*", "o3-pro*"),
    _is_of_responses,
    _load_responses,
)
# The first one is asked where nothing chooses another.
APIS = (CHAT, RESPONSES)
API_NAMES = (AUTO, *(api.name for api in APIS))


def choose_api(name: str, model: str, more: Iterable[str] = ()) -> Api:
    """Return the API that `name`, of API_NAMES, and the model choose; `more` are patterns of models for responses."""
    if name != AUTO:
        return next(api for api in APIS if api.name == name)
    if any(fnmatchcase(model, pattern) for pattern in more):
        return RESPONSES
    return next((api for api in APIS if any(fnmatchcase(model, pattern) for pattern in api.models)), CHAT)


def recognize_api(payload: Mapping[str, Any], name: str) -> Api:
    """Return the API that has sent an event of this name, or an answer; chat for what no other API sends."""
    return next((api for api in APIS if api.has_sent(payload, name)), CHAT)


def api_at(path: str) -> Api:
    """Return the API whose requests go to `path`. Raises KeyError for any other path."""
    return {api.path: api for api in APIS}[path]
