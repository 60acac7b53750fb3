import io

from rich.console import Console

from synthgrad.bench.running.progress import RunProgress


def shown(force_terminal):
    console = Console(file=io.StringIO(), width=100, force_terminal=force_terminal)
    with RunProgress(100, console) as progress:
        progress.describe("backprop-s0")
        progress.advance(50)
        progress.note("backprop-s0: finished [98 %]")
    return console.file.getvalue()


def test_off_a_terminal_there_are_only_the_notes():
    assert shown(False) == "backprop-s0: finished [98 %]\n"


def test_a_terminal_shows_a_bar_as_well():
    text = shown(True)
    assert "backprop-s0: finished [98 %]" in text
    assert "50/100" in text
    assert "left" in text
