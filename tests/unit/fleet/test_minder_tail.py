"""What an exit report quotes of an engine's output: its last lines, and before them those that name an error."""

from freehold.fleet.processes.minder_pipes import (
    ERROR_LINES,
    TAIL_BYTES,
    TAIL_LINE_CHARS,
    TAIL_LINES,
    OutputTail,
)


def lines_of(*texts: str) -> list[str]:
    tail = OutputTail()
    for text in texts:
        tail.add(text.encode())
    return tail.lines()


def test_the_last_lines_are_kept_and_cut() -> None:
    said = lines_of(*(f"line {number}\n\n" for number in range(200)), "x" * 2000)
    assert len(said) == TAIL_LINES
    assert said[-1] == "x" * TAIL_LINE_CHARS
    assert said[0] == f"line {200 - TAIL_LINES + 1}"


def test_a_cause_far_above_them_is_quoted_too() -> None:
    noise = "".join(f"  File {number}, in some_error_handler\n" for number in range(150))
    said = lines_of("starting\n", "(Worker) torch.OutOfMemoryError: too much\n", noise, "the end\n")
    assert said[0] == "(Worker) torch.OutOfMemoryError: too much"
    assert said[1].startswith("  File 91")
    assert len(said) == 1 + TAIL_LINES


def test_of_many_errors_the_last_are_quoted() -> None:
    said = lines_of("".join(f"ValueError: {number}\n" for number in range(500)))
    assert said == [f"ValueError: {number}" for number in range(500 - ERROR_LINES - TAIL_LINES, 500)]


def test_memory_is_bounded() -> None:
    tail = OutputTail()
    for _ in range(100):
        tail.add(b"ValueError: old\n" + b"y" * 20_000)
    assert tail._size_bytes <= TAIL_BYTES + 20_016
    assert sum(map(len, tail.lines())) <= (ERROR_LINES + TAIL_LINES) * TAIL_LINE_CHARS


def test_no_odd_separator_makes_a_line_of_its_own() -> None:
    assert lines_of("a\x0bb\x1cc\u2028d\x85e\n", "f\rg\n") == ["a\x0bb\x1cc\u2028d\x85e", "f", "g"]
