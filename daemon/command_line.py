"""Parse the command line: a command, the mode flags, and the two numbers that the older script took.

The flags of settings are rows in config/settings.py.
"""

import argparse
import os
import re
import sys
from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from typing import NoReturn

from daemon import __version__
from daemon.config import SETTINGS, add_setting_flags, quoted, setting
from daemon.core.errors import ConfigError
from daemon.printing import print_text

PROGRAM = "actorsync" if os.path.basename(sys.argv[0]) == "actorsync" else "python -m daemon"  # as the user started it
COMMANDS = ("sync", "status", "reload", "demo")  # sync is the default; the others are also flags
CONCURRENCY = ("workers_per_actor", "concurrent_actors")  # the settings of the two numbers, in this order
_MODES = {
    "dry_run": "print what a sync would download, and exit",
    "check_config": "print the settings and the source of each, and exit",
    "status": "print the status of the daemon that owns this data directory",
    "reload": "have the daemon read its configuration and credentials again",
    "demo": "sync generated images from a local S3 server into demo-data/",
}
_COLUMNS = 80  # where --help does not go to a terminal
_NUMBER = re.compile(r"[-+.]?[0-9].*")
_DASHES = "-\N{EN DASH}\N{EM DASH}\N{MINUS SIGN}"  # word processors turn two hyphens into one of these


class UsageError(Exception):
    """The command line is wrong: exit 2. `usage` is the text that argparse prints above the error."""

    def __init__(self, message: str, usage: str) -> None:
        super().__init__(message)
        self.usage = usage


def parse_arguments(argv: Sequence[str]) -> argparse.Namespace:
    """The modes as booleans, and for each setting the given value or None.

    Raises UsageError, and SystemExit after --help and --version.
    """
    parser = _parser()
    arguments, unknown = parser.parse_known_args(argv)
    for word in unknown:
        if word.startswith("-"):
            flag = word.partition("=")[0]
            parser.error(f"unknown flag {flag}{_suggestion(flag, _flags())}")
    words = [*arguments.words, *unknown]
    if words:
        _refuse_further_globs(parser, argv, words)
        if not _NUMBER.fullmatch(words[0]):
            _take_command(parser, arguments, words)
        _take_numbers(parser, arguments, words)
    return arguments


def refuse_settings(arguments: argparse.Namespace, accepted: Iterable[str], mode: str) -> None:
    """Raise UsageError where a setting was given that the mode ignores. `accepted`: the names of the settings it uses."""
    ignored = [row.flag for row in SETTINGS if getattr(arguments, row.name, None) is not None and row.name not in accepted]
    if ignored:
        used = ", ".join(str(setting(name).flag) for name in accepted)
        _parser().error(f"{mode} ignores {', '.join(map(str, ignored))}: leave that out (it takes {used})")


# --- the parser -------------------------------------------------------------------------------------------------------


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(message, self.format_usage())

    def _print_message(self, message: str, file: object = None) -> None:
        """Print --help or --version. argparse's own ignores a standard output that cannot be written."""
        print_text(message.rstrip("\n"))


class _ShowVersion(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        print_text(f"actorsync {__version__} (md5 batch: {'yes' if find_spec('md5_batch') else 'no'})")
        raise SystemExit(0)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog=PROGRAM,
        description="Mirror the training images that JSON manifests list from S3 to local disk, once or as a daemon.",
        allow_abbrev=False,
        formatter_class=_formatter,
    )
    modes = parser.add_mutually_exclusive_group()
    for name, help_text in _MODES.items():
        modes.add_argument(f"--{name.replace('_', '-')}", action="store_true", help=help_text)
    parser.add_argument("--once", action="store_true", help="sync everything once, and exit")
    parser.add_argument(
        "--version", action=_ShowVersion, nargs=0, help="show the version, and whether the C extension is there"
    )
    parser.add_argument(
        "words",
        nargs="*",
        metavar="COMMAND",
        help="sync (the default), status, reload or demo; or two numbers: downloads per actor, then concurrent actors",
    )
    add_setting_flags(parser)
    return parser


def _formatter(prog: str) -> argparse.HelpFormatter:
    """A formatter as wide as the terminal. argparse's own imports shutil, bz2 and lzma to find the width."""
    try:
        columns = int(os.environ.get("COLUMNS") or os.get_terminal_size().columns)
    except (OSError, ValueError):
        columns = _COLUMNS
    return argparse.HelpFormatter(prog, width=(columns or _COLUMNS) - 2)


# --- words that are not flags -----------------------------------------------------------------------------------------


def _refuse_further_globs(parser: argparse.ArgumentParser, argv: Sequence[str], words: Sequence[str]) -> None:
    """Refuse `--actors a b`, which a glob that the shell expanded looks like. A command or two numbers may follow."""
    if words[0] in COMMANDS or (len(words) == 2 and all(re.fullmatch("[1-9][0-9]*", word) for word in words)):
        return
    for row in SETTINGS:
        for index, given in enumerate(argv):
            if not row.repeatable or given.partition("=")[0] != row.flag:
                continue
            following = [*argv[index + ("=" not in given) + 1 :], "-"]
            globs = following[: next(n for n, word in enumerate(following) if word.startswith("-"))]
            if words[0] in globs:
                parser.error(f"{row.flag} takes one GLOB: repeat it, as {row.flag} 'a*' {row.flag} 'b*', in quotes")


def _take_command(parser: argparse.ArgumentParser, arguments: argparse.Namespace, words: list[str]) -> None:
    command = words.pop(0)
    if command not in COMMANDS:
        suggestion = (
            _suggestion(command, [*COMMANDS, *_flags()]) or f"; the commands are {', '.join(COMMANDS)}; for flags see --help"
        )
        parser.error(f"unknown command {quoted(command)}{suggestion}")
    if command != "sync":
        setattr(arguments, command, True)
    if others := [mode for mode in _MODES if mode != command and getattr(arguments, mode)]:
        parser.error(f"{command} is not allowed with --{others[0].replace('_', '-')}")
    if words and command in ("status", "reload"):
        parser.error(f"{command} takes no {quoted(words[0])}")


def _take_numbers(parser: argparse.ArgumentParser, arguments: argparse.Namespace, words: Sequence[str]) -> None:
    """Take the numbers of `--once 20 10`, as users of the older script type it."""
    if not words:
        return
    if len(words) != len(CONCURRENCY):
        parser.error("give both numbers or none: downloads per actor, then concurrent actors, as in `--once 20 10`")
    if any(getattr(arguments, name) is not None for name in CONCURRENCY):
        parser.error("give the two numbers or the flags --workers-per-actor and --concurrent-actors, not both")
    for name, word in zip(CONCURRENCY, words, strict=True):
        try:
            setattr(arguments, name, setting(name).parse(word))
        except ConfigError as error:
            parser.error(f"{error} (the two numbers are downloads per actor, then concurrent actors)")


# --- did you mean -----------------------------------------------------------------------------------------------------


def _flags() -> list[str]:
    modes = (*_MODES, "once", "version", "help")
    return [f"--{name.replace('_', '-')}" for name in modes] + [row.flag for row in SETTINGS if row.flag is not None]


def _suggestion(word: str, names: Iterable[str]) -> str:
    """`: did you mean --once?`, or "" where no name is similar."""
    import difflib  # needed only for a misspelled word

    bare = word.lstrip(_DASHES).replace("_", "-").lower()
    by_bare: dict[str, str] = {}
    for name in names:
        by_bare.setdefault(name.lstrip("-"), name)
    near = difflib.get_close_matches(bare, by_bare, n=1) or [name for name in by_bare if bare and name.startswith(bare)][:3]
    return f": did you mean {' or '.join(by_bare[name] for name in near)}?" if near else ""
