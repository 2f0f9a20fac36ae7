"""The console view: a line for each event, a summary of each run, and a live progress bar."""

from daemon.adapters.console.bar import ERASE, ProgressBar, Rates, bar_text, shares_terminal
from daemon.adapters.console.summary import RULE
from daemon.adapters.console.text import shown, terminal_can_colour, terminal_can_emoji, terminal_can_move
from daemon.adapters.console.view import ConsoleView, with_times

__all__ = [
    "ERASE",
    "RULE",
    "ConsoleView",
    "ProgressBar",
    "Rates",
    "bar_text",
    "shares_terminal",
    "shown",
    "terminal_can_colour",
    "terminal_can_emoji",
    "terminal_can_move",
    "with_times",
]
