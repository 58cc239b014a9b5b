"""The chunk with text only equals one that is built with the names of its fields."""

from smai_cli.answer.chunk import Chunk, text_chunk


def test_a_chunk_with_text_only_has_its_fields_in_their_order() -> None:
    assert text_chunk("{}", "Hi", "m", 1, True, False, (2, 3)) == Chunk(
        data="{}", text="Hi", model="m", choice_index=1, names_role=True, is_plain=False, part=(2, 3)
    )
