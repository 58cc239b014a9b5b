"""Whether smai can tell a complete answer from a cut one on a server, and what a profile for it should say."""

import json
from typing import NamedTuple

from smai_cli.answer.completeness import DONE_WORD, rank
from smai_cli.doctor.findings import Finding, judge_end, reports_limit
from smai_cli.doctor.recorder import ProbeAnswer, ProbeAnswers

_NOT_ASKED = Finding(None, "the request was not sent")


class Verdict(NamedTuple):
    """`is_good` is None where it is not known, and `causes` are the findings that decided.

    `lines` are those for a profile, each a setting in TOML or a comment.
    """

    is_good: bool | None
    detail: str
    lines: tuple[str, ...]
    causes: tuple[Finding, ...]


def judge(answers: ProbeAnswers, api: str) -> Verdict:
    """Return the verdict on a server that is asked in `api`, chat or responses."""
    end = answers.get(("ends", api))
    causes = (judge_end([end]) if end else _NOT_ASKED, _cut(answers, api))
    found = [finding.is_good for finding in causes]
    is_good = False if False in found else None if None in found else True
    return Verdict(is_good, _detail(is_good, causes), tuple(_lines(answers, api)), causes)


def _detail(is_good: bool | None, causes: tuple[Finding, ...]) -> str:
    if is_good:
        return "smai can tell a complete answer from a truncated one on this server"
    what = next(cause.detail for cause in causes if cause.is_good is is_good)
    can = "cannot" if is_good is False else "could not find out whether it can"
    return f"smai {can} tell a complete answer from a truncated one on this server: {what}"


def _cut(answers: ProbeAnswers, api: str) -> Finding:
    """Return whether a stream in this API says that the token limit cut it."""
    answer = answers.get(("limit", api))
    return reports_limit(answer) if answer else _NOT_ASKED


def _misreports_cut(answers: ProbeAnswers, api: str) -> bool:
    """Return whether this API called an answer complete that the token limit cut, in a stream or in one piece."""
    found = [answers.get((name, api)) for name in ("limit", "limit in one piece")]
    return any(reports_limit(answer).is_good is False for answer in found if answer)


def _lines(answers: ProbeAnswers, api: str) -> list[str]:
    """Return the lines for a profile."""
    lines = _accept_lines(answers.get(("ends", api)))
    good = [name for name in _TITLES if _cut(answers, name).is_good]
    bad = [name for name in _TITLES if name not in good and _misreports_cut(answers, name)]
    if good and bad:
        lines += [f"# The {_TITLES[bad[0]]} does not report that the token limit cut an answer.", f'api = "{good[0]}"']
    return lines


_TITLES = {"chat": "chat API", "responses": "Responses API"}


def _accept_lines(end: ProbeAnswer | None) -> list[str]:
    """Return the lines about --accept for a server that ends an answer in its own way."""
    if end is None or judge_end([end]).is_good is not False:
        return []
    record = end.record
    if not record.reasons and record.is_done and record.text:
        risk = "# The risk: with a gateway, an answer that was cut then looks complete."
        return [risk, f'accept = ["{DONE_WORD}"]']
    unknown = [word for word in end.words if rank(word) == 1]
    if unknown:
        risk = "# Only if this word means on your server that the answer is complete:"
        return [risk, f"accept = [{json.dumps(unknown[0], ensure_ascii=False)}]"]
    return []
