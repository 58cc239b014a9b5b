"""Find out why a server refused a request, or failed to answer it: one table for the errors of all servers.

Names take precedence over numbers, and money over everything: many servers answer 429, 400 or 500 for an empty
account, and then a retry cannot succeed.
"""

import re
from typing import NamedTuple

from smai_cli.answer.api_error import ApiError, is_http_like
from smai_cli.errors import Cause

_RATE_LIMIT = 429
_TOO_LARGE = 413
_FAILING = 500
# These mean the same as the HTTP status and as a number in the error object. 529 is Anthropic's.
_NUMBERS = {
    401: Cause.ACCOUNT,
    402: Cause.MONEY,
    403: Cause.FORBIDDEN,
    _RATE_LIMIT: Cause.RATE_LIMIT,
    529: Cause.OVERLOAD,
}
_STATUSES = {
    404: Cause.NOT_FOUND,
    405: Cause.NOT_FOUND,
    408: Cause.SERVER,
    _TOO_LARGE: Cause.PROMPT_SIZE,
    503: Cause.OVERLOAD,
}
# How many characters of a name or a text are searched, so that no server can make the search slow.
_SEARCHED = 1000
# With these, even an error named after a rate limit cannot be retried.
_FINAL = {401, 402, _TOO_LARGE}
_PASSING = (Cause.RATE_LIMIT, Cause.OVERLOAD)
# The upstream error that a gateway passes on counts for these causes only: the key, the account and the limits that it
# is about may be the gateway's.
_ABOUT_THE_REQUEST = (Cause.PROMPT_SIZE, Cause.MODEL, Cause.CONTENT)
_NEVER = r"(?!)"


class _Rule(NamedTuple):
    """A row of the table: two regular expressions for a cause.

    `kinds` is searched in each name of an error, reduced to lower-case letters and digits; `message` in the text of
    the error, in lower case, for servers whose names do not give the cause. Numbers of four digits are those of Z.ai
    (docs.z.ai/api-reference/api-code) or, after `baseresp`, of MiniMax
    (platform.minimax.io/docs/api-reference/errorcode), those of five FastChat's (fastchat/constants.py, ErrorCode).
    """

    cause: Cause
    kinds: str = _NEVER
    message: str = _NEVER


_ROWS = (
    # insufficient_user_quota: songquanpeng/one-api#1270. exceeded_current_quota_error with 429:
    # MoonshotAI/kimi-code#1857. Arrearage with 400: QuantumNous/new-api#1401. AccountOverdueError:
    # volcengine.com/docs/82379/1299023. billing_not_active with 429: BerriAI/litellm#2743.
    # By text only: "Insufficient Balance", DeepSeek (Aider-AI/aider#4851); "insufficient balance (1008)" with 500,
    # MiniMax (MiniMax-AI/MiniMax-M2#62); "Your credit balance is too low" with 400, Anthropic
    # (anthropics/claude-quickstarts#229); "used all available credits" with 429, xAI (continuedev/continue#10373),
    # which also says "doesn't have any credits"; "prepayment credits are depleted" with 429, Gemini; the Chinese for
    # an insufficient balance with 429, Zhipu (continuedev/continue#11823).
    # Not "exceeded your current quota": Gemini also says this of its limits per minute (Jeffser/Alpaca#951).
    _Rule(
        Cause.MONEY,
        r"insufficient(user|token|account)?(quota|balance|credit|fund)|exceededcurrentquota|preconsumetokenquota"
        r"|creditbalance|(balance|credit|fund)s?(exhausted|depleted|notenough|toolow)|(no|outof)credits?$"
        r"|arrear|overdue|paymentrequired|freetieronly"
        r"|billing(?!hard)|^(1113|1309)$|^baseresp1008$",
        r"(insufficient|not enough) (account )?(balance|credit|fund)|requires more credits"
        r"|(balance|credits?|funds?) (is |are )?(insufficient|too low|not enough|exhausted|depleted)"
        r"|(used all available|run out of|n[o']t have any) credits"
        r"|\u4f59\u989d\u4e0d\u8db3|\u989d\u5ea6\u4e0d\u8db3|\u6b20\u8d39",
    ),
    # budget_exceeded with 422, LiteLLM, in its time with 400 and 429: litellm/exceptions.py, BudgetExceededError.
    # By text only: Anthropic with 400, Fireworks with 412, OpenRouter with 403 (RooCodeInc/Roo-Code#515).
    _Rule(
        Cause.SPENDING_LIMIT,
        r"spend(ing)?limit|organizationusagelimit|billinghard|budgetexceeded",
        r"reached your specified api usage limits|monthly spending limit|budget has been exceeded|^key limit exceeded",
    ),
    _Rule(Cause.EXPIRED_KEY, r"expired.*(key|token)|(key|token).*expired|^1003$", r"(api key|token) (has )?expired"),
    _Rule(Cause.MISSING_KEY, r"missing.*apikey|noapikey|^1001$", r"^you didn't provide an api key"),
    # Gemini has API_KEY_INVALID in the details of its 400, INVALID_ARGUMENT. "No connected db." with 400 is what
    # LiteLLM without a database says of a key that is not its master key (litellm/proxy/auth/user_api_key_auth.py).
    # Its type, no_db_connection, also means, with 503, that the database cannot be reached.
    _Rule(
        Cause.KEY,
        r"(invalid|incorrect)(api|auth)key|apikeyinvalid|invalidtoken$|^100[024]$|^4010[12]$|^baseresp(1004|2049)$",
        r"(invalid|incorrect) api[ -]?key|api key (is )?(not valid|invalid)|^no connected db\b",
    ),
    # By text only: Gemini with 400 (FoundationAgents/OpenManus#803).
    _Rule(Cause.REGION, r"unsupportedcountry", r"\blocation is not supported\b"),
    _Rule(
        Cause.ACCOUNT,
        r"authentication|unauthori[sz]ed|unauthenticated|permission(denied|error)|insufficientpermission|accessdenied"
        r"|(account|organi[sz]ation|user).*(deactivated|disabled|suspended|locked|restricted|notactive|inactive)"
        r"|^(111[0-2]|1121|1220|1311)$|^40103$",
    ),
    # A prompt larger than the account's limit per minute is never answered: 413 from Groq, which calls it
    # rate_limit_exceeded (assafelovic/gpt-researcher#985), 429 from OpenAI (vanna-ai/vanna-flask#11).
    # exceed_context_size_error: llama.cpp (tools/server). By text only, in this order: OpenAI's compatibles, xAI,
    # vLLM and SGLang and LM Studio, OpenAI's Responses API and llama.cpp and Anthropic, MiniMax, Gemini, GitHub
    # Copilot, Moonshot, Groq and Cerebras, DashScope, TGI, Cohere, Bedrock. Also by text only: LM Studio's "keep the
    # first 6009 tokens when" (lmstudio-ai/lmstudio-bug-tracker#546), TabbyAPI's max_seq_len
    # (SillyTavern/SillyTavern#3543), SambaNova's sequence length (cline/cline#294), and LiteLLM's
    # ContextWindowExceededError (litellm/exceptions.py).
    _Rule(
        Cause.PROMPT_SIZE,
        r"context(length|window|overflow|size)|prompttokensexceeded|stringabovemaxlength|tokenslimitreached"
        r"|(prompt|input|tokens|characters|request|payload|content|entity)too(long|large)|^1261$|^40303$",
        r"maximum (context|prompt) length|(longer|greater) than the (maximum model|model's context|context) length"
        r"|exceed(s|ed)? (the |max )?(available )?context (window|size|length|limit)|context ?(window|length) ?exceed"
        r"|keep the first \d+ tokens when|(prompt|request) length [\d +]+is greater than max_seq_len"
        r"|input token count.{1,40}exceeds|prompt token count.{1,20}exceeds|exceeded model token limit"
        r"|reduce the length of the (messages|prompt)|range of input length should be"
        r"|^(input validation error: )?`inputs` (tokens \+|must have less)|total number of tokens in the prompt"
        r"|(prompt|input) (is )?too long|^request too large for |maximum supported sequence length",
    ),
    # OperationNotSupported: Azure, for a model without chat. model_decommissioned: Groq
    # (valentinfrlch/ha-llmvision#324). By text only: Ollama, vLLM; "Model Not Exist", DeepSeek
    # (ConardLi/easy-dataset#9); "Model not found", xAI (definableai/definable.ai#112) and Fireworks
    # (warpdotdev/warp#15107); "models/x is not found", Gemini (piersolenski/wtf.nvim#64); "Invalid model name passed
    # in", LiteLLM (BerriAI/litellm#8821); "x is not a valid model ID", OpenRouter (continuedev/continue#10758), which
    # also says "No endpoints found"; "Not found the model x", Moonshot (mozilla-ai/any-llm#778).
    _Rule(
        Cause.MODEL,
        r"model.*(not(found|exist|open|supported|available)|decommissioned)|(invalid|unknown|nosuch)model|deploymentnotfound"
        r"|operationnotsupported|^notfounderror$|^121[12]$|^40301$",
        r"^(the )?models?\b.{0,200}(not found|not exist)|\b(no such|unknown) model\b|\binvalid model name\b"
        r"|is not a valid model\b|^not found the model\b|^no endpoints found",
    ),
    # By text only: xAI with 403 (UKGovernmentBEIS/inspect_ai PR 2267), OpenAI's reasoning models (openai/codex#38849).
    _Rule(
        Cause.CONTENT,
        r"content(policy|filter)|moderation|datainspectionfailed|sensitive(content|word)|responsibleaipolicy"
        r"|prohibitedcontent|safetycheck|^1301$|^baseresp102[67]$",
        r"^content violates usage guidelines|prompt was flagged as potentially violating",
    ),
    # LM Studio answers an unknown path with 200 (lmstudio-ai/lmstudio-bug-tracker#618).
    _Rule(Cause.NOT_FOUND, message=r"^unexpected endpoint or method"),
    _Rule(Cause.REQUEST, r"^40302$|^baseresp2013$"),
    # usage_limit_reached: ChatGPT's server for Codex; model_cooldown: CLIProxyAPI in front of it.
    _Rule(
        Cause.RATE_LIMIT,
        r"ratelimit|toomanyrequests|throttl|resource.*exhausted|slowdown|limitrequests|quotaexceeded|toomanytokens"
        r"|usagelimitreached|modelcooldown"
        r"|^(130[23458]|131[03])$|^baseresp(1002|1039|1041|2045|2056)$",
        r"\brate.?limit|too many requests",
    ),
    _Rule(
        Cause.OVERLOAD,
        r"overload|capacity|serverbusy|^(service)?unavailable$|^(1120|1312)$",
        r"overloaded|(over|at|out of) capacity|server is (too )?busy",
    ),
    # Sent with 400 nevertheless: by vLLM after its engine died, by OpenRouter for an upstream stream.
    _Rule(
        Cause.SERVER,
        message=r"^enginecore encountered an issue|engine ?dead ?error|background loop has errored"
        r"|^json error injected into sse stream",
    ),
)
# These say less than an HTTP status, and are searched only without one, in this order.
_VAGUE_ROWS = (
    _Rule(
        Cause.REQUEST,
        r"invalid(request|param|prompt|value|argument)|missing.*param|unsupported(param|value)|badrequest|validation"
        r"|unprocessable|failedprecondition",
    ),
    _Rule(
        Cause.SERVER,
        r"servererror|internal|upstream|connection|network|gateway|timeout|timedout|deadlineexceeded|^apierror$"
        r"|provider.*error|engine.*(error|dead)|^insufficientsystemresource|^baseresp(1001|1013|1024|1033)$",
        r"internal[ _](server )?error|upstream|connection|network error|bad gateway|gateway time-?out|timed? ?out\b"
        r"|(service|server|temporarily) unavailable|provider returned error|server had an error|socket hang up",
    ),
)


def cause_of(api_error: ApiError, http_status: int | None = None) -> Cause | None:
    """Return the cause of `api_error`; `http_status` is that of its answer, if it was an HTTP error.

    None for an error in an answer with HTTP status 200 that no row of the table matches.
    """
    kinds = [re.sub(r"[^a-z0-9]", "", kind[:_SEARCHED].lower()) for kind in api_error.kinds]
    numbers = {int(kind[:3]) for kind in kinds if is_http_like(kind)}
    known = numbers | ({http_status} if http_status else set())
    is_final = http_status in _FINAL or _TOO_LARGE in numbers
    cause = next((row.cause for row in _ROWS if _matches(row, kinds, api_error)), None)
    if cause in _PASSING:
        if is_final:
            cause = None
        elif _RATE_LIMIT in known:
            return Cause.RATE_LIMIT
    cause = cause or _cause_of_numbers(numbers, http_status)
    return cause or next((row.cause for row in _VAGUE_ROWS if _matches(row, kinds, api_error)), None)


def _matches(row: _Rule, kinds: list[str], api_error: ApiError) -> bool:
    """Return whether a row matches an error, by one of the normalized `kinds` or by its text."""
    if any(re.search(row.kinds, kind) for kind in kinds):
        return True
    texts = (api_error.message, api_error.upstream if row.cause in _ABOUT_THE_REQUEST else "")
    return any(re.search(row.message, text[:_SEARCHED].lower()) for text in texts)


def _cause_of_numbers(numbers: set[int], http_status: int | None) -> Cause | None:
    """Return the cause by the HTTP status of an answer, and by the numbers in its error object that look like one.

    Gemini's and OpenRouter's objects have such a `code`, MiniMax's an `http_code`. None without any number.
    """
    known = numbers | ({http_status} if http_status else set())
    if cause := next((cause for number, cause in _NUMBERS.items() if number in known), None):
        return cause
    status = http_status or max(numbers, default=None)
    if status is None:
        return None
    return _STATUSES.get(status, Cause.SERVER if status >= _FAILING else Cause.REQUEST)
