"""An answer is complete if the server says so and does not contradict itself: row by row."""

import json

import pytest
from completeness import PIECES, ROWS, Piece, Row
from pumping import Pieces, run_pump


def ids(row: Row | Piece) -> str:
    return f"{row.dialect}-{row.name}"


@pytest.mark.parametrize("row", ROWS, ids=ids)
def test_the_verdict_follows_what_the_server_says_about_the_end(row: Row) -> None:
    for pieces in (row.events, [b"".join(row.events)]):
        for is_framed, status in ((False, row.status), (True, row.framed_status)):
            source = Pieces(*pieces, is_framed=is_framed)
            outcome, writes = run_pump(
                source, dialect=row.dialect, accept=row.accept, due=row.due, output_limit=row.output_limit
            )
            shown = f"framed: {is_framed}, {outcome.error}"
            assert (outcome.status, b"".join(writes).decode().removesuffix("\n")) == (
                status,
                row.text.strip("\n"),
            ), shown


@pytest.mark.parametrize("row", ROWS, ids=ids)
def test_final_writes_only_complete_answers(row: Row) -> None:
    outcome, writes = run_pump(
        Pieces(*row.events), "final", dialect=row.dialect, accept=row.accept, due=row.due, output_limit=row.output_limit
    )
    text = row.text if row.status == 0 else ""
    assert (outcome.status, b"".join(writes).decode()) == (row.status, text)


@pytest.mark.parametrize("piece", PIECES, ids=ids)
def test_an_answer_in_one_piece_is_judged_by_the_same_rule(piece: Piece) -> None:
    body = json.dumps(piece.body).encode()
    outcome, writes = run_pump(Pieces(body), dialect=piece.dialect, accept=piece.accept, due=piece.due)
    assert (outcome.status, b"".join(writes).decode()) == (piece.status, piece.text), outcome.error
