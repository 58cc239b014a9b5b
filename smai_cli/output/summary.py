"""The summary of an Outcome for stderr: one line of text, or one JSON object."""

import json
from typing import Any

from smai_cli.answer.chunk import Usage
from smai_cli.answer.outcome import Outcome
from smai_cli.common.text import one_line
from smai_cli.errors import SmaiError
from smai_cli.output import tokens


def count_tokens(outcome: Outcome) -> tuple[Usage, str]:
    """Return the token counts and their source: `server`, or if it sent none `local`, or else `estimate`.

    A local count needs the text and the tokenizer of the model. It covers only the answer: servers add tokens of their
    own to the messages of a prompt.
    """
    if outcome.usage:
        return outcome.usage, "server"
    # An answer without text may still have tokens: of a tool call, hidden reasoning, or other choices.
    is_all = outcome.text and not outcome.calls and not outcome.is_several
    exact = tokens.count(outcome.text, outcome.model) if is_all else None
    if exact is not None:
        return Usage(completion_tokens=exact), "local"
    about = tokens.estimate(outcome.characters, outcome.ascii_characters)
    return Usage(completion_tokens=about), "estimate"


def summary_text(outcome: Outcome) -> str:
    """Return the summary as one line of text."""
    usage, source = count_tokens(outcome)
    mark = "~" if source == "estimate" else ""
    counts = (("in", usage.prompt_tokens), ("out", usage.completion_tokens))
    tokens = ", ".join(f"{mark}{count} {way}" for way, count in counts if count is not None)
    if usage.reasoning_tokens:
        tokens += f" ({usage.reasoning_tokens} of them reasoning)"
    first_s = outcome.first_delta_s
    first = "" if first_s is None else f"first delta after {first_s:.2f} s, "
    return (
        f"{outcome.characters} characters; tokens: {tokens or 'none counted'} ({source}); "
        f"{first}{outcome.elapsed_s:.2f} s in all; {one_line(outcome.finish_reason or 'no finish_reason', 40)}"
    )


def summary_json(outcome: Outcome) -> str:
    """Return the summary as one line of JSON, including a failure."""
    return json.dumps(summary_fields(outcome))


def summary_fields(outcome: Outcome) -> dict[str, Any]:
    """Return the members of the JSON summary."""
    usage, source = count_tokens(outcome)
    first_s = outcome.first_delta_s
    return {
        "complete": outcome.error is None,
        "finish_reason": outcome.finish_reason,
        "characters": outcome.characters,
        "usage": usage._asdict(),
        "usage_source": source,
        "model": outcome.model,
        "first_delta_s": None if first_s is None else round(first_s, 6),
        "elapsed_s": round(outcome.elapsed_s, 6),
        "retries": outcome.retries,
        "exit_status": int(outcome.status),
        "error": error_json(outcome.error),
    }


def error_json(error: SmaiError | None) -> dict[str, Any] | None:
    """Return the members that describe a failure; None if there is none."""
    if error is None:
        return None
    return {
        "kind": error.kind,
        "message": str(error),
        "http_status": error.http_status,
        "retryable": error.retryable,
        "request_id": error.request_id,
    }
