"""A Completion -> the summary for stderr: one line to read, or one JSON object."""

import json
from typing import Any

from smai_cli.output import tokens
from smai_cli.stream.chunk import Usage
from smai_cli.stream.outcome import Completion
from smai_cli.text import one_line


def count_tokens(completion: Completion) -> tuple[Usage, str]:
    """Return the token counts and where they come from: `server`; where it sent none `local`, or else `estimate`.

    A local count needs the text, and the tokenizer of the model. It is that of the answer only: servers wrap the
    messages of a prompt in tokens of their own.
    """
    if completion.usage:
        return completion.usage, "server"
    # No text is not no tokens: a tool call, hidden reasoning and other choices have some.
    is_all = completion.text and not completion.tools and not completion.is_several
    exact = tokens.count(completion.text, completion.model) if is_all else None
    if exact is not None:
        return Usage(completion_tokens=exact), "local"
    about = tokens.estimate(completion.characters, completion.ascii_characters)
    return Usage(completion_tokens=about), "estimate"


def summary_text(completion: Completion) -> str:
    """Return the summary as one line for a person."""
    usage, source = count_tokens(completion)
    mark = "~" if source == "estimate" else ""
    counts = (("in", usage.prompt_tokens), ("out", usage.completion_tokens))
    tokens = ", ".join(f"{mark}{count} {way}" for way, count in counts if count is not None)
    if usage.reasoning_tokens:
        tokens += f" ({usage.reasoning_tokens} of them reasoning)"
    first_s = completion.first_delta_s
    first = "" if first_s is None else f"first delta after {first_s:.2f} s, "
    return (
        f"{completion.characters} characters; tokens: {tokens or 'none counted'} ({source}); "
        f"{first}{completion.elapsed_s:.2f} s in all; {one_line(completion.finish_reason or 'no finish_reason', 40)}"
    )


def summary_json(completion: Completion) -> str:
    """Return the summary as one line of JSON, which also tells a failure."""
    usage, source = count_tokens(completion)
    first_s = completion.first_delta_s
    return json.dumps(
        {
            "complete": completion.error is None,
            "finish_reason": completion.finish_reason,
            "characters": completion.characters,
            "usage": usage._asdict(),
            "usage_source": source,
            "model": completion.model,
            "first_delta_s": None if first_s is None else round(first_s, 6),
            "elapsed_s": round(completion.elapsed_s, 6),
            "retries": completion.retries,
            "exit_status": int(completion.status),
            "error": _error(completion),
        }
    )


def _error(completion: Completion) -> dict[str, Any] | None:
    error = completion.error
    if error is None:
        return None
    return {
        "kind": error.kind,
        "message": str(error),
        "http_status": error.http_status,
        "retryable": error.retryable,
        "request_id": error.request_id,
    }
