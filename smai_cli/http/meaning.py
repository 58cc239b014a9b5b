"""What follows from a server's words for its failure: which kind it is, the next step, and whether to try again.

One table for HTTP errors, error events in a stream and bodies in one piece. Names go before numbers, and money before
all: many servers answer 429, 400 or 500 for an empty account, and to ask those again is in vain.
"""

import re
from typing import NamedTuple

from smai_cli.errors import AccessError, Again, BrokenError, BusyError, RefusedError, SmaiError
from smai_cli.http.api_error import ApiError, is_http_like
from smai_cli.text import one_line

# Whoever knows where the key came from says so in the place of `the key`.
_ACCESS_HINT = "check the key and the account"
_REQUEST_HINT = "check -m/--model, the options and --base-url"
_BUSY_HINT = "try again later"

_RETRIED = {408, 429, 500, 502, 503, 504, 529}
_ACCESS = {401, 402, 403}
_BUSY = {429, 529}  # 529 is Anthropic's "overloaded"
_TOO_LARGE = 413
# How many characters of a name or a text are searched: no server is to keep the expressions busy.
_SEARCHED = 1000
# Statuses that no name of a limit makes a passing one.
_FINAL = {401, 402, _TOO_LARGE}


class Meaning(NamedTuple):
    """What a failure is (AccessError, BusyError or RefusedError), the next step, and when to try again.

    `is_vague` says that only a number or a general name tells it, such as 400 or 500.
    """

    kind: type[SmaiError]
    hint: str
    again: Again = Again.NEVER
    is_vague: bool = False


class _Row(NamedTuple):
    """A row of the table: `kinds` is searched in each name of an error, in lower case, its letters and digits only.

    `message` is searched in the text of the error, for servers whose names say nothing. Numbers of four digits are
    those of Z.ai (docs.z.ai/api-reference/api-code) or, after `baseresp`, of MiniMax
    (platform.minimax.io/docs/api-reference/errorcode), those of five FastChat's (fastchat/constants.py, ErrorCode).
    """

    meaning: Meaning
    kinds: str
    message: str = r"(?!)"


_ROWS = (
    # insufficient_user_quota: songquanpeng/one-api#1270. exceeded_current_quota_error with 429:
    # MoonshotAI/kimi-code#1857. Arrearage with 400: QuantumNous/new-api#1401. AccountOverdueError:
    # volcengine.com/docs/82379/1299023. billing_not_active with 429: BerriAI/litellm#2743.
    # By text only: "Insufficient Balance", DeepSeek (Aider-AI/aider#4851); "insufficient balance (1008)" with 500,
    # MiniMax (MiniMax-AI/MiniMax-M2#62); "Your credit balance is too low" with 400, Anthropic
    # (anthropics/claude-quickstarts#229); "used all available credits" with 429, xAI (continuedev/continue#10373);
    # the Chinese for an insufficient balance with 429, Zhipu (continuedev/continue#11823).
    # Not "exceeded your current quota": Gemini says it of its limits a minute, too (Jeffser/Alpaca#951).
    _Row(
        Meaning(AccessError, "top up the account"),
        r"insufficient(user|token|account)?(quota|balance|credit|fund)|exceededcurrentquota|preconsumetokenquota"
        r"|creditbalance|balanceexhausted|(no|outof)credits?$|arrear|overdue|paymentrequired"
        r"|billing(?!hard)|^(1113|1309)$|^baseresp1008$",
        r"insufficient (account )?(balance|credit|fund)|credit balance is too low|balance is insufficient"
        r"|(used all available|run out of) credits|\u4f59\u989d\u4e0d\u8db3|\u989d\u5ea6\u4e0d\u8db3|\u6b20\u8d39",
    ),
    _Row(
        Meaning(AccessError, "raise the limit of the account"),
        # budget_exceeded with 422, LiteLLM, in its time with 400 and 429: litellm/exceptions.py, BudgetExceededError.
        r"spend(ing)?limit|organizationusagelimit|billinghard|budgetexceeded",
    ),
    _Row(Meaning(AccessError, "replace the key, it has expired"), r"expired.*(key|token)|(key|token).*expired|^1003$"),
    _Row(Meaning(AccessError, "check that the key reaches the server"), r"missing.*apikey|noapikey|^1001$"),
    # API_KEY_INVALID stands in the details of Gemini's 400, INVALID_ARGUMENT. "No connected db." with 400 is what
    # LiteLLM without a database says of a key that is not its master key (litellm/proxy/auth/user_api_key_auth.py).
    # Its type, no_db_connection, is also that of a database that is away, with 503.
    _Row(
        Meaning(AccessError, "check the key"),
        r"(invalid|incorrect)(api|auth)key|apikeyinvalid|invalidtoken$|^100[024]$|^4010[12]$|^baseresp(1004|2049)$",
        r"(invalid|incorrect) api[ -]?key|api key (is )?(not valid|invalid)|^no connected db\b",
    ),
    _Row(
        Meaning(AccessError, _ACCESS_HINT),
        r"authentication|unauthori[sz]ed|unauthenticated|permission(denied|error)|insufficientpermission|accessdenied"
        r"|(account|organi[sz]ation|user).*(deactivated|disabled|suspended|locked|restricted|notactive|inactive)"
        r"|^(111[0-2]|1121|1220|1311)$|^40103$",
    ),
    # Too large for what an account may send in a minute, so never to be answered: 413 by Groq, whose name for it is
    # rate_limit_exceeded (assafelovic/gpt-researcher#985), 429 by OpenAI (vanna-ai/vanna-flask#11).
    _Row(
        Meaning(RefusedError, "shorten the prompt"),
        r"context(length|window|overflow)|(prompt|input|tokens|characters|request|payload|content|entity)too(long|large)"
        r"|stringabovemaxlength|tokenslimitreached|^1261$|^40303$",
        r"maximum context length|prompt is too long|^request too large for ",
    ),
    _Row(
        Meaning(RefusedError, "check -m/--model"),
        r"model.*not(found|exist|open|supported)|(invalid|unknown|nosuch)model|deploymentnotfound|^notfounderror$"
        r"|^121[12]$|^40301$",
        r"^(the )?model .{1,200}(not found|does not exist)",  # Ollama, vLLM
    ),
    _Row(
        Meaning(RefusedError, "rephrase the prompt"),
        r"content(policy|filter)|moderation|datainspectionfailed|sensitivecontent|responsibleaipolicy|safetycheck"
        r"|^1301$|^baseresp102[67]$",
    ),
    _Row(Meaning(RefusedError, _REQUEST_HINT), r"^40302$|^baseresp2013$"),
    _Row(
        Meaning(BusyError, _BUSY_HINT, Again.UNANSWERED),
        r"ratelimit|toomanyrequests|overload|throttl|capacity|resource.*exhausted|serverbusy|slowdown|limitrequests"
        r"|quotaexceeded|toomanytokens|^(service)?unavailable$|^(1120|130[23458]|131[023])$"
        r"|^baseresp(1002|1039|1041|2045|2056)$",
    ),
)
# What says less than an HTTP status, and counts only where there is none.
_REQUEST = r"invalid(request|param|prompt|value|argument)|missing.*param|unsupported(param|value)|badrequest"


def meaning_of(api_error: ApiError, http_status: int | None = None) -> Meaning | None:
    """Return what `api_error` means, `http_status` being that of its answer, if it was an HTTP error.

    Returns None for an error object in a 200 that says nothing which is known here.
    """
    kinds = [re.sub(r"[^a-z0-9]", "", kind[:_SEARCHED].lower()) for kind in api_error.kinds]
    message = api_error.message[:_SEARCHED].lower()
    numbers = {int(kind[:3]) for kind in kinds if is_http_like(kind)}
    is_final = http_status in _FINAL or _TOO_LARGE in numbers
    for row in _ROWS:
        if is_final and row.meaning.kind is BusyError:
            break
        if any(re.search(row.kinds, kind) for kind in kinds) or re.search(row.message, message):
            return row.meaning
    by_number = _meaning_of_numbers(numbers, http_status)
    if by_number is None and any(re.search(_REQUEST, kind) for kind in kinds):
        return Meaning(RefusedError, _REQUEST_HINT, is_vague=True)
    return by_number


def http_error(  # noqa: PLR0913  # what an answer says beside its body
    http_status: int,
    reason: str,
    api_error: ApiError,
    *,
    wait_s: float | None,
    request_id: str | None,
    should_retry: bool | None = None,
) -> SmaiError:
    """Return the failure that an HTTP status other than 200 is, with the server's words in it.

    `should_retry` is the server's own word on that, if it has one. It counts more than the status, but
    nothing is tried again without money or a key.
    """
    what = f"the server answered {http_status} {one_line(reason, 60)}".rstrip()
    if api_error.message or api_error.code:
        what += f": {api_error}"
    if request_id:
        what += f" [request id {one_line(request_id, 100)}]"
    kind, hint, again, _ = meaning_of(api_error, http_status) or Meaning(RefusedError, _REQUEST_HINT)
    if should_retry is not None and kind is not AccessError:
        again = Again.UNANSWERED if should_retry else Again.NEVER
    error = _error(Meaning(kind, hint, again), what)
    error.retryable = error.retryable or again is Again.UNANSWERED
    error.wait_s, error.http_status, error.request_id = wait_s, http_status, request_id
    return error


def answer_error(api_error: ApiError, *, in_stream: bool, has_text: bool) -> SmaiError:
    """Return the failure that an error object in an answer with HTTP status 200 is.

    `in_stream` says that it came as an event, not as the whole body: then it is a broken answer, unless it says that
    it is something else, before any text (`has_text`). It may have been billed, so it is tried again only where nothing
    of it was delivered.
    """
    what = f"the server answered with an error: {api_error}"
    if in_stream:
        what = f"the server reported an error in the stream: {api_error}"
    meaning = meaning_of(api_error)
    is_final = meaning is not None and meaning.kind is not BusyError
    again = Again.NEVER if is_final else Again.HELD_BACK
    if has_text or (in_stream and (meaning is None or meaning.is_vague)):
        hint = meaning.hint if meaning else _BUSY_HINT
        return BrokenError(what, hint, again=again, retryable=not is_final)
    if meaning is None:
        return RefusedError(what, "check the request and --base-url")
    return _error(meaning._replace(again=again), what)


def _meaning_of_numbers(numbers: set[int], http_status: int | None) -> Meaning | None:
    """Return what the HTTP status of an answer means, and the numbers in its error object, which count as one does.

    Gemini's and OpenRouter's objects have such a `code`, MiniMax's an `http_code`.
    """
    known = numbers | ({http_status} if http_status else set())
    if known & _ACCESS:
        return Meaning(AccessError, _ACCESS_HINT)
    if known & _BUSY:
        return Meaning(BusyError, _BUSY_HINT, Again.UNANSWERED)
    status = http_status or max(numbers, default=None)
    if status is None:
        return None
    if status in _RETRIED or status >= 500:  # noqa: PLR2004
        again = Again.UNANSWERED if status in _RETRIED else Again.NEVER
        return Meaning(BusyError, _BUSY_HINT, again, is_vague=True)
    is_known = status == _TOO_LARGE
    return Meaning(RefusedError, "shorten the prompt" if is_known else _REQUEST_HINT, is_vague=not is_known)


def _error(meaning: Meaning, what: str) -> SmaiError:
    if meaning.kind is AccessError:
        return AccessError(what, meaning.hint)
    if meaning.kind is BusyError:
        return BusyError(what, meaning.hint, again=meaning.again)
    return RefusedError(what, meaning.hint, again=meaning.again)
