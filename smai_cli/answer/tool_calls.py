"""Tool calls, assembled from the parts in which they arrive."""

import itertools
import json
from collections.abc import Iterable
from typing import Any

from smai_cli.answer.chunk import CallPart, PendingCall
from smai_cli.common.text import Joiner

_FUNCTION = "function"  # the type of a call that does not say its type
_PARTS_OF_ONE = 2
_SCALARS = "0123456789+-.Eaeflnrstu"  # the characters of numbers, true, false and null
# What may complete a string that was cut, perhaps in an escape such as \" or \u00e9.
_STRING_ENDS = ('"', '\\"', '0"', '00"', '000"', '0000"')
_EMPTY = "{}"  # arguments that servers send before the real ones
_DECODER = json.JSONDecoder()


class ToolCalls:
    """The tool calls of an answer, in the order of their arrival."""

    def __init__(self) -> None:
        self._calls: list[_Call] = []
        self._places: dict[int, _Call] = {}
        self._ids: dict[str, _Call] = {}
        self._has_stray_part = False  # one that does not say to which of several calls it belongs

    def __bool__(self) -> bool:
        """Return whether there is any call."""
        return bool(self._calls)

    def __len__(self) -> int:
        """Return how many calls there are."""
        return len(self._distinct())

    def add(self, parts: Iterable[CallPart]) -> None:
        """Add parts in the order of their arrival."""
        for part in parts:
            call = self._call_of(part)
            if part.id and not call.id:
                call.id = part.id
                self._ids[part.id] = call
            if part.name != call.name:  # some servers repeat the name in each part, others send it in pieces
                call.name += part.name
            call.type = part.type if part.type != _FUNCTION else call.type
            call.arguments.append(part.arguments)

    def new_in(self, call: CallPart) -> CallPart | None:
        """Return what a call that comes as a whole adds to those so far; None if all of it has arrived before."""
        for known in self._calls:
            if not (known.id and call.id):
                if (known.name, known.text) == (call.name, call.arguments):
                    return None
            elif known.id == call.id:
                so_far = "" if known.text == _EMPTY else known.text
                if not call.arguments.startswith(so_far) or call.arguments in (so_far, known.text):
                    return None
                return call._replace(number=None, name="", arguments=call.arguments.removeprefix(so_far))
        return call

    @property
    def names(self) -> list[str]:
        """The names of the called tools, each once."""
        return list(dict.fromkeys(call.name for call in self._calls if call.name))

    @property
    def unclear_call(self) -> str:
        """What cannot be used as it arrived: a call, or arguments; empty if everything can."""
        calls = self._join_rests()
        if not all(call.name for call in calls):
            return "a tool call without a name"
        if any(call.breaks_off() for call in calls):
            return "a tool call without its end"
        if self._has_stray_part and sum(call.is_broken() for call in calls) > 1:
            return "arguments that may belong to any of several tool calls"
        return ""

    def as_json(self) -> list[dict[str, Any]]:
        """Return the calls in the form of the chat API; halves of a surrogate pair are joined, a lone one is U+FFFD."""
        return [call.as_json() for call in self._distinct()]

    def _call_of(self, part: CallPart) -> "_Call":
        """Return the call that a part belongs to, which may be a new one."""
        if part.number is not None:
            call = self._places.get(part.number) or self._continued(part, self._ids.get(part.id))
            if call:
                self._places[part.number] = call
        elif part.id:
            call = self._ids.get(part.id)
        else:
            last = self._calls[-1] if self._calls else None
            call = self._continued(part, last) if part.name else last
            self._has_stray_part |= not part.name and len(self._calls) > 1
        if call is None or self._begins_another(part, call):
            call = _Call()
            self._calls.append(call)
            if part.number is not None:
                self._places[part.number] = call
        return call

    @staticmethod
    def _continued(part: CallPart, call: "_Call | None") -> "_Call | None":
        """Return `call` if a part under a new index, or with a name and no index, continues it; None otherwise.

        Some servers count the parts in the index, others repeat the name in each part. Arguments that begin after a
        name belong to the call before them only if that has an id, no arguments yet, and they come without an id.
        """
        if call is None or part.name not in ("", call.name) or call.has_complete_arguments():
            return None
        is_beginning = bool(part.name) and part.arguments.lstrip()[:1] in ("", "{")
        return None if is_beginning and (call.text or not call.id or part.id) else call

    def _begins_another(self, part: CallPart, call: "_Call") -> bool:
        """Return whether a part begins another call under the number of `call`: servers reuse numbers.

        LM Studio gives each part of one call an id of its own, and only the first part has a name
        (NousResearch/hermes-agent#106943).
        """
        if part.name and call.is_rest():
            return True
        has_other_id = bool(part.id and call.id) and part.id != call.id
        if part.name and part.id and call.id:
            return has_other_id
        return bool((part.name or has_other_id) and call.name) and call.has_complete_arguments()

    def _join_rests(self) -> "list[_Call]":
        """Return the calls; what came without a name and an id continues the call before it, if that makes it JSON.

        Nebius has another index in the last part of a call (pipecat-ai/pipecat PR 4688), others in each part after the
        first (dirac-run/dirac PR 215, agno-agi/agno#8879).
        """
        joined: list[_Call] = []
        for has_begun, run in itertools.groupby(self._calls, lambda call: bool(call.name or call.id)):
            calls = list(run)
            whole = joined[-1].join(calls) if joined and not has_begun else None
            if whole:
                joined[-1] = whole
            else:
                joined += calls
        return joined

    def _distinct(self) -> "list[_Call]":
        """Return the calls without duplicates (same id, name and arguments). Calls without an id are all distinct."""
        seen: dict[Any, _Call] = {}
        for call in self._join_rests():
            seen.setdefault((call.id, call.name, call.text) if call.id else id(call), call)
        return list(seen.values())


class PendingCalls:
    """The calls of a response, as far as other events than their own items tell of them."""

    def __init__(self) -> None:
        self._calls: list[_Call] = []
        self._by_name: dict[int | str, _Call] = {}

    def __len__(self) -> int:
        """Return how many calls there are."""
        return len(self._calls)

    def add(self, part: PendingCall) -> None:
        """Add what an event says. llama.cpp has no place in the output, and an id alone (ggml-org/llama.cpp#20607)."""
        ids = [name for name in part.names if isinstance(name, str)]
        known = (part.is_new and ids) or part.names  # a call that begins is not another one at the same place
        call = next((self._by_name[name] for name in known if name in self._by_name), None)
        if call is None:
            call = _Call()
            self._calls.append(call)
        self._by_name.update(dict.fromkeys(part.names, call))
        if not part.is_whole:
            call.arguments.append(part.arguments)
        elif part.arguments:
            call.arguments = [part.arguments]

    def completed(self, call: CallPart) -> CallPart:
        """Return a call with the arguments that only an earlier event had in full (Wei-Shaw/sub2api PR 6629)."""
        known = self._by_name.get(call.id)
        return call._replace(arguments=known.text) if known and known.text.startswith(call.arguments) else call


class _Call:
    """A tool call. Its arguments may arrive in as many parts as they have characters."""

    def __init__(self) -> None:
        self.type = _FUNCTION
        self.id = ""
        self.name = ""
        self.arguments: list[str] = []

    @property
    def text(self) -> str:
        """The arguments so far."""
        text = "".join(self.arguments)
        if self.type != _FUNCTION:
            return text
        text = _without_repetition(text)
        parts = [part for part in self.arguments if part]
        return parts[-1] if _is_growing(parts) and not _is_json(text) else text

    def is_rest(self) -> bool:
        """Return whether it has no name and id, and arguments that do not begin a JSON object."""
        text = "".join(self.arguments[:_PARTS_OF_ONE]).lstrip()
        return not (self.name or self.id) and self.type == _FUNCTION and text[:1] not in ("", "{")

    def join(self, parts: "list[_Call]") -> "_Call | None":
        """Return this call with the arguments of `parts` after its own; None if that is not JSON."""
        whole = _Call()
        whole.type, whole.id, whole.name = self.type, self.id, self.name
        whole.arguments = [*self.arguments, *(text for part in parts for text in part.arguments)]
        return whole if _is_json("".join(whole.arguments)) else None

    def is_broken(self) -> bool:
        """Return whether it has arguments that are not JSON."""
        return self.type == _FUNCTION and bool(self.text) and not _is_json(self.text)

    def breaks_off(self) -> bool:
        """Return whether it has arguments that are the beginning of JSON.

        vLLM, when it streams, gives such a call the finish_reason tool_calls if the token limit cut it
        (vllm-project/vllm#53269). Other arguments that are not JSON are what the model wrote.
        """
        return self.type == _FUNCTION and _is_beginning(self.text)

    def has_complete_arguments(self) -> bool:
        """Return whether its arguments are complete JSON after at most two parts, the name and the arguments."""
        return len(self.arguments) <= _PARTS_OF_ONE and _is_json(self.text)

    def as_json(self) -> dict[str, Any]:
        """Return the call in the form of the chat API: a function with arguments, or a custom tool with an input."""
        input_name = "arguments" if self.type == _FUNCTION else "input"
        tool = {"name": _code_points(self.name), input_name: _code_points(self.text)}
        return {"id": _code_points(self.id), "type": self.type, self.type: tool}


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _is_beginning(text: str) -> bool:
    """Return whether a text is the beginning of a JSON object, but not all of it."""
    if not text.lstrip().startswith("{") or _is_json(text):
        return False
    # A number, or a word such as true, may be cut as well.
    return any(_ends_early(text + end) for end in _STRING_ENDS) or _ends_early(text.rstrip().rstrip(_SCALARS))


def _ends_early(text: str) -> bool:
    """Return whether a text is JSON up to its end, where more must follow."""
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        return error.pos >= len(text.rstrip())
    except RecursionError:
        return False
    return False


def _is_growing(parts: list[str]) -> bool:
    """Return whether each of several parts repeats the one before, and the last is complete JSON.

    Servers of DeepSeek and Qianfan send the arguments so far in each part (NousResearch/hermes-agent PR 35718).
    """
    is_repeated = len(parts) > 1 and all(later.startswith(part) for part, later in itertools.pairwise(parts))
    return is_repeated and _is_json(parts[-1])


def _without_repetition(arguments: str) -> str:
    """Return arguments that are one JSON object several times, perhaps after an empty one, as that object.

    Gateways send the complete arguments again after their deltas (decolua/9router PR 2869, Soju06/codex-lb#284), and
    LiteLLM has sent {} before those of Claude (BerriAI/litellm#4537). Different objects are left as they are.
    """
    begin, at = 0, 0
    last: dict[str, Any] = {}
    try:
        while at < len(arguments):
            value, end = _DECODER.raw_decode(arguments, at)
            if not isinstance(value, dict) or last not in ({}, value):
                return arguments
            begin, at, last = at, len(arguments) - len(arguments[end:].lstrip()), value
    except (ValueError, RecursionError):
        return arguments
    return arguments[begin:]


def _code_points(text: str) -> str:
    joiner = Joiner()
    return joiner.whole(text) + joiner.rest()
