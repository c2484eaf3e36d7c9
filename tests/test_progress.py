from __future__ import annotations

import _thread
import io
import re
import signal
import sys
import threading
from types import SimpleNamespace

import pytest
from rich.cells import cell_len

from lamina import _core, progress
from lamina.progress import byte_bar, track, watch


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch):
    """A standard error that says it is a terminal, wide enough for a whole line."""
    screen = Terminal()
    # Not on sys itself: pytest puts its own capture back between a fixture and its test.
    monkeypatch.setattr(progress, "sys", SimpleNamespace(stderr=screen, stdout=sys.stdout))
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("TERM", "xterm")
    return screen


def test_a_terminal_sees_the_description_and_the_count(terminal):
    assert list(track(range(3), "reading rows")) == [0, 1, 2]
    assert "reading rows" in terminal.getvalue()
    assert "3/3" in terminal.getvalue()


def test_a_total_serves_an_iterable_without_a_length(terminal):
    assert list(track((letter for letter in "ab"), "letters", total=2)) == ["a", "b"]
    assert "2/2" in terminal.getvalue()


def test_an_unknown_total_still_counts(terminal):
    list(track((letter for letter in "ab"), "letters"))
    assert "2/?" in terminal.getvalue()


LONG = "importing " + "a_file_whose_name_tells_everything" * 4 + ".npy"


def last_line(terminal: Terminal) -> str:
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", terminal.getvalue())
    return re.split(r"[\r\n]+", text.rstrip("\r\n"))[-1]


@pytest.mark.parametrize("columns", [28, 40, 59, 60, 80, 120])
@pytest.mark.parametrize("description", ["reading", LONG, "読" * 60])
def test_the_count_is_there_however_narrow_the_terminal_and_long_the_description(
    terminal, monkeypatch, columns, description
):
    monkeypatch.setenv("COLUMNS", str(columns))
    list(track(range(1234), description))
    line = last_line(terminal)
    assert "1234/1234" in line
    assert cell_len(line) <= columns
    assert line.startswith(description[:3])
    assert "━" in line
    assert ("left" in line) == (columns >= 60)


@pytest.mark.parametrize("columns", [40, 80, 120])
def test_bytes_are_there_however_narrow_the_terminal(terminal, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    with byte_bar(LONG) as show:
        show(300_000_000, 400_000_000)
        show(400_000_000, 400_000_000)
    line = last_line(terminal)
    assert "400.0/400.0 MB" in line
    assert cell_len(line) <= columns


def test_names_are_shown_as_they_are_and_steer_no_terminal(terminal):
    list(track(range(3), "preshuffling lstm.output[hidden] [/b] \x1b[2J\n"))
    assert "lstm.output[hidden] [/b] \N{REPLACEMENT CHARACTER}[2J" in last_line(terminal)


def test_no_terminal_sees_nothing(capsys):
    assert list(track(range(3), "reading rows")) == [0, 1, 2]
    assert capsys.readouterr() == ("", "")


def test_a_terminal_that_wants_none_sees_nothing(terminal):
    assert list(track(range(3), "reading rows", progress=False)) == [0, 1, 2]
    assert terminal.getvalue() == ""


def test_leaving_early_stops_the_bar_and_shows_the_cursor_again(terminal):
    items = track(range(3), "reading rows")
    next(items)
    items.close()  # pyright: ignore[reportAttributeAccessIssue]
    assert terminal.getvalue().rstrip().endswith("\x1b[?25h")


def test_an_exception_of_the_iterable_comes_through(terminal):
    def failing():
        yield 1
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        list(track(failing(), "reading rows"))


def test_items_are_taken_one_at_a_time(terminal):
    taken: list[int] = []
    items = track((taken.append(i) or i for i in range(3)), "reading rows")
    next(items)
    assert taken == [0]


def test_what_the_loop_prints_stays_on_standard_output(terminal, capsys):
    for item in track(range(2), "reading rows"):
        print("item", item)
    assert capsys.readouterr().out == "item 0\nitem 1\n"
    assert "item" not in terminal.getvalue()


class Work:
    """Stands for a `Progress` of the core."""

    def __init__(self) -> None:
        self.stopped = threading.Event()
        self.bytes = (3, 4)

    def stop(self) -> None:
        self.stopped.set()


def test_watched_work_shows_its_bytes_and_returns_its_answer(terminal):
    assert watch(type, "verifying") is _core.Progress
    assert "verifying" in terminal.getvalue()


def test_an_exception_of_watched_work_is_raised(terminal):
    with pytest.raises(ZeroDivisionError):
        watch(lambda state: 1 // 0, "dividing")


def test_ctrl_c_asks_watched_work_to_stop_and_waits_for_it(monkeypatch):
    monkeypatch.setattr(_core, "Progress", Work)
    ended = []

    def work(state):
        _thread.interrupt_main()
        assert state.stopped.wait(60)
        ended.append(state)

    # a shell that starts this in the background has it ignore Ctrl-C
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            watch(work, "working")
    finally:
        signal.signal(signal.SIGINT, before)
    assert ended
