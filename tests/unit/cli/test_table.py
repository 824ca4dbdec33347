import click

from freehold.cli.terminal.table import Row, paragraph, table

SENTENCE = "an engine that reads half of its weights from a slow disk takes long to start"
ROWS = [
    Row([click.style("warning", fg="yellow"), "disk", SENTENCE], ["do: move the weights to a faster disk, such as an NVMe"]),
    Row([click.style("good", fg="green"), "port", "127.0.0.1:8000 is free"]),
]  # fmt: skip
NUMBERS = [Row(["m-0", "1,234,567", "7"]), Row(["a-model-with-a-long-name-0", "8", "12,345"])]
HEADS = ("replica", "tokens", "requests")


def test_off_a_terminal_every_row_is_one_line() -> None:
    lines = list(map(click.unstyle, table(ROWS, None)))
    assert lines == [
        f"warning  disk  {SENTENCE}",
        "    do: move the weights to a faster disk, such as an NVMe",
        "good     port  127.0.0.1:8000 is free",
    ]


def test_the_last_column_is_wrapped_between_words_where_the_terminal_is_narrow() -> None:
    lines = list(map(click.unstyle, table(ROWS, 60)))
    assert lines == [
        "warning  disk  an engine that reads half of its weights from",
        "               a slow disk takes long to start",
        "    do: move the weights to a faster disk, such as an NVMe",
        "good     port  127.0.0.1:8000 is free",
    ]
    for columns in (30, 40, 60, 80):
        wrapped = list(map(click.unstyle, table(ROWS, columns)))
        assert max(map(len, wrapped)) <= columns
        assert " ".join(" ".join(wrapped).split()) == " ".join(" ".join(lines).split())


def test_numbers_are_aligned_to_the_right_and_become_blocks_where_the_terminal_is_narrow() -> None:
    wide = list(map(click.unstyle, table(NUMBERS, 80, heads=HEADS, numbers={"tokens", "requests"})))
    assert wide == [
        "replica                        tokens  requests",
        "m-0                         1,234,567         7",
        "a-model-with-a-long-name-0          8    12,345",
    ]
    narrow = list(map(click.unstyle, table(NUMBERS, 40, heads=HEADS, numbers={"tokens", "requests"})))
    assert narrow == [
        "m-0",
        "  tokens    1,234,567",
        "  requests  7",
        "a-model-with-a-long-name-0",
        "  tokens    8",
        "  requests  12,345",
    ]


def test_the_heads_are_bold_and_no_line_ends_in_blanks() -> None:
    head, *rest = table([Row(["a", ""]), Row(["b", "c"])], 80, heads=("x", "y"))
    assert head == click.style("x  y", bold=True)
    assert rest == ["a", "b  c"]
    assert table([], 80) == []


def test_a_paragraph_keeps_long_words_whole() -> None:
    path = "/var/lib/freehold/a-very-long-folder-name/ledger.sqlite"
    assert paragraph(f"see {path} for more", 30, indent=2, hanging=4) == [
        "  see",
        f"    {path}",
        "    for more",
    ]
    assert paragraph("", 30) == [""]
