"""The endings of real servers: through the pump, through `smai decode`, and over a socket as gateways send them."""

import json
import re
from pathlib import Path

import pytest
from conftest import Smai
from pumping import WHOLE_MODES, Pieces, run_pump
from rawserver import CLOSE_HEAD, HEAD, LAST_CHUNK, OLD_HEAD, Ask, Serve, Step, chunk, http, length_head, reset
from servers import SERVER_STREAMS, SERVER_TAPES, SERVERS, ServerTape
from tapes import printed

pytest_plugins = ["rawserver"]
pytestmark = pytest.mark.preloaded
ROOT = Path(__file__).parents[2]
BY_NAME = {tape.name: tape for tape in SERVER_TAPES}
# Gateways between smai and a model, which send their own end.
GATEWAYS = {"FastChat", "LiteLLM", "MiniMax", "gcli2api", "llama.cpp", "new-api", "one-api"}


def parametrize_tapes(*tapes: ServerTape) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("tape", tapes, ids=lambda tape: tape.name)


def test_recordings_expectations_and_sources_match() -> None:
    sources = (SERVER_STREAMS / "SOURCES.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([^|]+) \| ([^|]+) \| ([^|]+) \|$", sources, re.MULTILINE)
    assert rows.pop(0) == ("tape", "how it ends", "source")
    assert [name for name, _, _ in rows] == [tape.name for tape in SERVER_TAPES]
    assert {f"{tape.name}.sse" for tape in SERVER_TAPES} | {"SOURCES.md"} == {
        path.name for path in SERVER_STREAMS.iterdir()
    }
    assert len(BY_NAME) == len(SERVER_TAPES)


@parametrize_tapes(*SERVER_TAPES)
def test_the_pump_has_the_expected_verdict_in_every_mode(tape: ServerTape) -> None:
    for mode in WHOLE_MODES:
        outcome, writes = run_pump(Pieces(tape.bytes), mode, dialect=tape.dialect)
        assert outcome.status == tape.status, mode
        assert outcome.characters == len(tape.text), mode
        expected = {
            "text": printed(tape.text),
            "raw": tape.bytes,
            "final": b"" if tape.status else printed(tape.text),
        }
        assert b"".join(writes) == expected.get(mode, b"".join(writes))
        if mode == "jsonl":
            for line in b"".join(writes).splitlines():
                json.loads(line, parse_constant=pytest.fail)


@parametrize_tapes(*SERVER_TAPES)
def test_the_split_into_pieces_does_not_change_the_verdict(tape: ServerTape) -> None:
    pieces = [tape.bytes[at : at + 7] for at in range(0, len(tape.bytes), 7)]
    outcome, writes = run_pump(Pieces(*pieces), dialect=tape.dialect)
    assert (outcome.status, b"".join(writes)) == (tape.status, printed(tape.text))


@pytest.mark.thorough
@parametrize_tapes(*SERVER_TAPES)
def test_decode_exits_with_the_expected_status(smai: Smai, tape: ServerTape) -> None:
    result = smai("decode", stdin=tape.bytes)
    assert (result.status, result.stdout) == (tape.status, printed(tape.text))
    assert result.stderr.count("\n") == (tape.status != 0 or "tool" in result.stderr)
    assert result.stderr == "" or result.stderr.startswith("smai: ")


@pytest.mark.thorough
@parametrize_tapes(*(tape for tape in SERVER_TAPES if tape.server in GATEWAYS and tape.dialect == "chat"))
def test_ask_exits_with_the_expected_status_if_the_body_is_complete(serve: Serve, ask: Ask, tape: ServerTape) -> None:
    result = ask(serve(HEAD, chunk(tape.bytes), LAST_CHUNK), "--retries", "0")
    assert (result.status, result.stdout) == (tape.http_status, printed(tape.text))


SEALED = [tape for tape in SERVER_TAPES if tape.needs_body_end]


@parametrize_tapes(*SEALED)
def test_a_finish_reason_in_the_first_chunk_counts_if_the_body_is_complete(
    serve: Serve, ask: Ask, tape: ServerTape
) -> None:
    result = ask(serve(length_head(len(tape.bytes)), tape.bytes))
    assert (result.status, result.stdout) == (0, printed(tape.text))


@parametrize_tapes(*SEALED)
def test_a_finish_reason_in_the_first_chunk_does_not_count_if_the_connection_just_closes(
    serve: Serve, ask: Ask, tape: ServerTape
) -> None:
    result = ask(serve(CLOSE_HEAD, tape.bytes))
    assert (result.status, result.stdout) == (8, printed(tape.text))


@parametrize_tapes(
    *(
        BY_NAME[name]
        for name in (
            "fastchat-well",
            "gcli2api-thinking",
            "gcli2api-well",
            "litellm-every-stop",
            "litellm-well",
            "llamacpp-well",
            "minimax-well",
            "new-api-well",
            "one-api-gemini-old",
            "one-api-well",
        )
    )
)
def test_a_body_that_ends_within_a_chunk_is_cut(serve: Serve, ask: Ask, tape: ServerTape) -> None:
    whole = chunk(tape.bytes)
    result = ask(serve(HEAD, whole[: whole.index(b"first.")]))
    assert (result.status, result.stdout) == (8, b"Tea \n")


# Reverse proxies: what they send for a cut answer, or for a busy server.

CUT = b"data: " + json.dumps({"choices": [{"index": 0, "delta": {"content": "Tea "}}]}).encode() + b"\n\n"


@pytest.mark.parametrize(
    ("body", "status"),
    [
        pytest.param([HEAD, chunk(CUT)], 8, id="the cut stays a cut"),
        pytest.param([HEAD, chunk(CUT), LAST_CHUNK], 8, id="the body ends properly"),
        pytest.param([CLOSE_HEAD, CUT], 8, id="the server closes the connection"),
        pytest.param([OLD_HEAD, CUT, reset], 8, id="the server resets the connection"),
        pytest.param([http("504 Gateway Time-out", b"<html></html>")], 6, id="nothing came in time"),
        pytest.param([http("200 OK", b"<html>busy</html>", "Content-Type: text/html")], 4, id="error_page 429 =200"),
    ],
)
def test_a_cut_answer_through_a_reverse_proxy_is_not_complete(
    serve: Serve, ask: Ask, body: list[Step], status: int
) -> None:
    result = ask(serve(*body), "--retries", "0")
    assert (result.status, result.stdout) == (status, b"Tea \n" if status == 8 else b"")


# The manual page.

# Servers without a recording: the page says what was observed.
WITHOUT_TAPE = ["Cloudflare Workers AI", "transformers serve", "Foundry Local", "Open WebUI", "Portkey", "optillm"]


def entries() -> dict[str, str]:
    """Return the entry of each server in smai-servers(7)."""
    page = (ROOT / "man" / "smai-servers.7").read_text(encoding="utf-8")
    servers = page[page.index(".Ss Services") : page.index(".Sh EXAMPLES")]
    return dict(re.findall(r"^\.It (.*)\n((?:(?!\.It |\.El).*\n)*)", servers, re.MULTILINE))


def has_only_done(tape: ServerTape) -> bool:
    """Return whether a stream without an error ends in [DONE], and no choice has a finish reason."""
    lines = [line.removeprefix("data: ") for line in tape.bytes.decode().splitlines() if line.startswith("data: {")]
    payloads = [json.loads(line) for line in lines if line.endswith("}")]
    choices = [choice for payload in payloads for choice in payload.get("choices", ())]
    words = [choice.get("finish_reason") or choice.get("finishReason") for choice in choices]
    return tape.how not in ("cut", "error") and tape.bytes.endswith(b"[DONE]\n\n") and not any(words)


def test_the_manual_has_exactly_the_servers_of_the_table() -> None:
    assert sorted(entries()) == sorted([*SERVERS, *WITHOUT_TAPE])


def test_each_list_of_servers_in_the_manual_is_sorted_by_name() -> None:
    page = (ROOT / "man" / "smai-servers.7").read_text(encoding="utf-8")
    for title in ("Services", "Programs that run a model", "Gateways"):
        names = re.findall(r"^\.It (.*)$", page.partition(f".Ss {title}\n")[2].partition("\n.S")[0], re.MULTILINE)
        assert len(names) > 5
        assert names == sorted(names, key=str.casefold)


@pytest.mark.parametrize("server", [*SERVERS, *WITHOUT_TAPE])
def test_each_entry_in_the_manual_begins_with_a_verdict(server: str) -> None:
    assert re.match(r"(Trusted|Partly trusted|Not trusted)[ .,(]", entries()[server])


@pytest.mark.parametrize("server", SERVERS)
def test_the_manual_recommends_accept_done_exactly_for_servers_without_a_finish_reason(server: str) -> None:
    needed = any(has_only_done(tape) for tape in SERVER_TAPES if tape.server == server)
    assert (".Fl -accept Cm done" in entries()[server]) == needed


@pytest.mark.parametrize("server", SERVERS)
def test_the_manual_names_the_unusual_statuses(server: str) -> None:
    # A limit is 9 and a cut is 8 everywhere; the page names any other status.
    own = {tape.status for tape in SERVER_TAPES if tape.server == server and tape.how in ("odd", "filtered")}
    assert own - {0} <= set(map(int, re.findall(r"status (\d+)", entries()[server])))
