"""What an answer to a request of the probe shows: recorded answers -> a finding for each check."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from smai_cli.answer.completeness import rank
from smai_cli.common.text import one_line
from smai_cli.doctor.recorder import ProbeAnswer
from smai_cli.errors import Cause, CutShortError, RefusedError, SmaiError, WithheldError

# More text than so many characters for each token of its limit was not limited.
_CHARACTERS_PER_TOKEN = 16
# From this share of the text on, and this time on, a stream that comes in one read is held back.
_HELD_SHARE = 0.9
_HELD_AFTER_S = 0.2
_FEW_DELTAS = 4


class Finding(NamedTuple):
    """What a check found: `is_good` is None where it is not known. `error` is the failure of the request, if any."""

    is_good: bool | None
    detail: str
    hint: str = ""
    error: SmaiError | None = None


class Row(NamedTuple):
    """A check of the probe: the requests that it needs, in one API, and what their answers mean.

    The answers come in the order of the requests; those at the end may be missing.
    """

    name: str
    api: str
    requests: tuple[str, ...]
    judge: Callable[[Sequence[ProbeAnswer]], Finding]


def rows(api: str) -> tuple[Row, ...]:
    """Return the checks for a server that is asked in `api`, the most important ones first."""
    other = "responses" if api == "chat" else "chat"
    limit = ("limit", "limit in one piece")
    return (
        Row("ends", api, ("ends",), judge_end),
        Row("text", api, ("ends",), judge_text),
        Row(f"limit_{api}", api, limit, judge_limit),
        Row("usage", api, ("ends", "limit"), judge_usage),
        Row(f"limit_{other}", other, limit, judge_limit),
        Row("streaming", api, ("streaming",), judge_streaming),
        Row("tools", api, ("tools",), judge_tools),
        *((Row("choices", api, ("choices",), judge_choices),) if api == "chat" else ()),
        Row("errors", api, ("errors",), judge_error),
    )


def judge_end(answers: Sequence[ProbeAnswer]) -> Finding:
    """Return whether a short answer ended in a way that smai takes for complete."""
    answer = answers[0]
    if finding := _unanswered(answer):
        return finding
    record, error = answer.record, answer.outcome.error
    if "length" in answer.words or record.is_over_limit or isinstance(error, CutShortError):
        what = f"the model used up the {answer.token_limit} tokens that the probe allows, so its end is not known"
        return Finding(None, what, "use a model that does not reason, or lower its effort")
    if isinstance(error, WithheldError):
        return Finding(None, error.describe(), "use another model")
    if error is None:
        return Finding(True, _end_of(answer))
    hint = error.hint
    if not record.reasons and record.is_done and record.text:
        hint = 'accept = ["done"] accepts it, but then an answer that a gateway truncated looks complete'
    return Finding(False, error.describe(), hint)


def _end_of(answer: ProbeAnswer) -> str:
    """Return how a complete answer ended."""
    record = answer.record
    reason = f"finish_reason {one_line(record.reasons[-1], 40)}" if record.reasons else "no finish_reason"
    if answer.api == "responses":
        reason = "response.completed"
    elif record.is_in_one_piece:
        reason += " in an answer in one piece"
    elif record.reasons:
        reason += " together with text" if record.has_reason_with_text else " in a separate chunk"
    done = "" if answer.api == "responses" else ", then [DONE]" if record.is_done else ", no [DONE]"
    frame = "HTTP" if answer.is_framed else "only the end of the connection"
    return f"{reason}{done}; {frame} marks the end of the body"


def judge_text(answers: Sequence[ProbeAnswer]) -> Finding:
    """Return whether a digit arrived as a string."""
    answer = answers[0]
    if finding := _unfinished(answer):
        return finding
    if answer.record.has_numbers:
        what = "pieces of text that look like numbers arrive as JSON numbers"
        return Finding(False, what, "smai reads them as text, other clients may lose them")
    if not any(map(str.isdigit, answer.record.text)):
        return Finding(None, "the model did not answer with a digit", "try another model")
    return Finding(True, "a digit arrived as a string")


def reports_limit(answer: ProbeAnswer) -> Finding:
    """Return whether an answer that its token limit cut says so."""
    if finding := _unanswered(answer):
        return finding
    if "length" in answer.words:
        return Finding(True, "a truncated answer ends with length")
    if doubt := _doubt_of_cut(answer):
        return Finding(None, doubt)
    if not answer.record.reasons:
        return Finding(False, "a truncated answer has no finish_reason")
    word = "completed" if answer.api == "responses" else one_line(answer.record.reasons[-1], 40)
    return Finding(False, f"a truncated answer ends with {word}")


def _doubt_of_cut(answer: ProbeAnswer) -> str:
    """Return why an answer was perhaps not cut at its token limit; empty if it was."""
    record, limit, tokens = answer.record, answer.token_limit, answer.tokens
    is_longer = len(record.text) > _CHARACTERS_PER_TOKEN * limit if tokens is None else tokens > limit
    if answer.break_off:
        return answer.break_off
    if record.is_over_limit or is_longer:
        return f"the server ignored the limit of {limit} token{'s' * (limit > 1)}"
    if any(map(rank, record.reasons)):
        return f"finish_reason {one_line(record.reasons[-1], 40)}"
    if record.reasons and tokens is not None and tokens < limit:
        return f"the model stopped by itself after {tokens} tokens"
    return ""


def judge_limit(answers: Sequence[ProbeAnswer]) -> Finding:
    """Return whether a cut at the token limit is reported, in a stream and in an answer in one piece."""
    streamed, *whole = [reports_limit(answer) for answer in answers]
    found = [streamed, *whole]
    if len({(finding.is_good, finding.detail) for finding in found}) == 1 and whole:
        detail = f"{streamed.detail}, streamed or not"
    else:
        ways = ("streamed", "not streamed")
        detail = "; ".join(f"{way}: {finding.detail}" for way, finding in zip(ways, found, strict=False))
    error = streamed.error or next((finding.error for finding in whole if finding.error), None)
    if all(finding.is_good is None for finding in found):
        hint = streamed.hint if streamed.error and answers[0].failure else ""
        return Finding(None, detail, hint, error)
    if any(finding.is_good is False for finding in found):
        return Finding(False, detail, _limit_hint(answers[0].api, streamed, whole), error)
    return Finding(True if streamed.is_good else None, detail, "", error)


def _limit_hint(api: str, streamed: Finding, whole: Sequence[Finding]) -> str:
    if streamed.is_good is False and any(finding.is_good for finding in whole):
        return "--no-stream returns the true reason"
    if streamed.is_good:
        return "do not use --no-stream"
    return f"do not use the {'chat' if api == 'chat' else 'Responses'} API if truncated answers matter"


def judge_usage(answers: Sequence[ProbeAnswer]) -> Finding:
    """Return whether token counts arrive in a stream, and agree with the token limit."""
    if finding := _unfinished(answers[0]):
        return finding
    if answers[0].tokens is None:
        return Finding(False, "no token counts arrive in a stream", "--summary and batch cannot count tokens here")
    for answer in answers[1:]:
        if answer.failure is None and answer.tokens is not None and answer.tokens > answer.token_limit:
            what = f"{answer.tokens} tokens were counted, and the limit was {answer.token_limit}"
            return Finding(False, what, "do not rely on the counts, or on the limit")
    return Finding(True, "token counts arrive, and agree with the limit")


def judge_streaming(answers: Sequence[ProbeAnswer]) -> Finding:
    """Return whether the text arrives in pieces, as it is made."""
    answer = answers[0]
    if finding := _unfinished(answer):
        return finding
    deltas = answer.record.deltas
    if answer.record.is_in_one_piece:
        return Finding(False, "the answer came in one piece, although a stream was asked for", "expect to wait for it")
    if len(deltas) < _FEW_DELTAS:
        what = f"the text came in {len(deltas)} pieces, too few to know" if deltas else "no text came"
        return Finding(None, what)
    total = sum(delta.characters for delta in deltas)
    share = sum(delta.characters for delta in deltas if delta.read == deltas[0].read) / total
    first_s, last_s = (delta.at_s - answer.started_s for delta in (deltas[0], deltas[-1]))
    seen = f"{share:.0%} of the text in the first read, after {first_s:.2f} s"
    if share < _HELD_SHARE:
        between_s = (last_s - first_s) / (len(deltas) - 1)
        return Finding(True, f"{len(deltas)} deltas, {between_s:.3f} s between them; {seen}")
    if first_s < _HELD_AFTER_S:
        return Finding(None, f"{seen}, which is too fast to know")
    hint = "unless the model is very fast, a proxy holds the stream back (nginx: proxy_buffering off)"
    return Finding(False, f"{len(deltas)} deltas at once: {seen}", hint)


def judge_tools(answers: Sequence[ProbeAnswer]) -> Finding:
    """Return whether a tool call arrives in a stream, with its reason."""
    answer = answers[0]
    if finding := _unfinished(answer):
        return finding
    has_reason = "tool_calls" in answer.words
    if "length" in answer.words:
        return Finding(None, "the call was cut at the token limit of the probe", "use a model that does not reason")
    if answer.outcome.calls and (has_reason or answer.api == "responses"):
        reason = "" if answer.api == "responses" else " with the reason tool_calls"
        return Finding(True, f"a call arrives in a stream{reason}")
    if answer.outcome.calls:
        word = one_line(answer.record.reasons[-1], 40) if answer.record.reasons else "no reason"
        return Finding(
            False, f"a call arrives with {word}, not with tool_calls", "look for the call, not for the reason"
        )
    if has_reason:
        what = "the reason is tool_calls, and no call arrives in a stream"
        return Finding(False, what, "use --no-stream for tools")
    return Finding(False, "no call arrived, although tool_choice required one", "do not rely on tool_choice")


def judge_choices(answers: Sequence[ProbeAnswer]) -> Finding:
    """Return whether two answers come, each with its end."""
    answer = answers[0]
    if finding := _unfinished(answer):
        return finding
    record = answer.record
    came, ended = len(record.choices | record.ended_choices), len(record.ended_choices)
    if came < 2:  # noqa: PLR2004  # as many were asked for
        return Finding(False, "n = 2 returns one answer", "ask twice")
    if ended < came:
        return Finding(False, f"n = 2 returns {came} answers, {ended} with a finish_reason", "use --no-stream for n")
    return Finding(True, "n = 2 returns two answers, each with its finish_reason")


def judge_error(answers: Sequence[ProbeAnswer]) -> Finding:
    """Return whether the error for an unknown model has an HTTP status and says what is wrong.

    Some servers answer under any name (ddalcu/mlx-serve#257), and some send the error with HTTP status 200
    (runpod-workers/worker-vllm#57).
    """
    error = answers[0].outcome.error
    if error is None or isinstance(error, (CutShortError, WithheldError)):
        return Finding(None, "the server answers under any model name", "check -m: a mistyped name is not noticed")
    if error.http_status is None and (answers[0].outcome.api_error or answers[0].record.reads):
        return Finding(False, f"HTTP status 200, and {error.describe()}", "do not rely on the HTTP status")
    if error.cause is Cause.MODEL or (isinstance(error, RefusedError) and "model" in error.describe().lower()):
        return Finding(True, error.describe())
    if error.http_status is None or not isinstance(error, RefusedError):
        return Finding(None, error.describe(), error.hint, error)
    return Finding(False, f"{error.describe()}, which does not mention the model", "then check -m first")


def _unanswered(answer: ProbeAnswer) -> Finding | None:
    """Return the finding for a request that was refused or failed; None for one that was answered."""
    failure = answer.failure
    return Finding(None, failure.describe(), failure.hint, failure) if failure else None


def _unfinished(answer: ProbeAnswer) -> Finding | None:
    """Return the finding for an answer that is not there or that broke off; None for one that has an end."""
    return _unanswered(answer) or (Finding(None, answer.break_off) if answer.break_off else None)
