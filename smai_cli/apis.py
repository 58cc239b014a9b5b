"""The APIs that smai supports: one row for each; nothing else in smai lists them."""

from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatchcase
from types import ModuleType
from typing import Any, NamedTuple

# Choose the API by the name of the model.
AUTO = "auto"


class Api(NamedTuple):
    """One API.

    `name` is its value of --api, `path` the path of its requests below the base URL. `prompt_member` is the member of
    a request that holds the prompt. `models` are patterns (fnmatch) of the models that use it by default. `has_sent`
    takes an event or an answer, and the event's name; it returns whether only this API sends such a thing. `load`
    imports the dialect: a module as `stream.pump.Dialect` describes it.
    """

    name: str
    path: str
    prompt_member: str
    models: tuple[str, ...]
    has_sent: Callable[[Mapping[str, Any], str], bool]
    load: Callable[[], ModuleType]


def _load_chat() -> ModuleType:
    # Each import is written out for tools that follow imports: mypy, and packagers such as PyInstaller.
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
    # According to OpenAI's documentation, /chat/completions refuses these models.
    ("gpt-5*-pro*", "o1-mini*", "o1-pro*", "o3-mini*", "o3-pro*"),
    _is_of_responses,
    _load_responses,
)
# The first one is the default.
APIS = (CHAT, RESPONSES)
API_NAMES = (AUTO, *(api.name for api in APIS))


def choose_api(name: str, model: str, more: Iterable[str] = ()) -> Api:
    """Return the API for `name` (one of API_NAMES) and a model; `more` are patterns of models that use responses."""
    if name != AUTO:
        return next(api for api in APIS if api.name == name)
    if any(fnmatchcase(model, pattern) for pattern in more):
        return RESPONSES
    return next((api for api in APIS if any(_is_like(model, pattern) for pattern in api.models)), CHAT)


def _is_like(model: str, pattern: str) -> bool:
    # The beginning first: for each pattern that it meets, fnmatch compiles a regular expression.
    return model.startswith(pattern.partition("*")[0]) and fnmatchcase(model, pattern)


def recognize_api(payload: Mapping[str, Any], name: str) -> Api:
    """Return the API that sent the event `payload` called `name`, or the answer `payload`; chat if unclear."""
    return next((api for api in APIS if api.has_sent(payload, name)), CHAT)


def api_at(path: str) -> Api:
    """Return the API whose requests go to `path`. Raises KeyError for any other path."""
    return {api.path: api for api in APIS}[path]
