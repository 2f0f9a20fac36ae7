"""The command line: flags, commands and the old script's numbers, and what is said of a slip."""

import sys

import pytest

from daemon.command_line import COMMANDS, UsageError, parse_arguments, refuse_settings
from daemon.config import SETTINGS

MODES = ("dry_run", "check_config", "status", "reload", "demo")


def modes(*argv: str) -> list[str]:
    arguments = parse_arguments(argv)
    return [mode for mode in (*MODES, "once") if getattr(arguments, mode)]


def refusal(*argv: str) -> str:
    with pytest.raises(UsageError) as refused:
        parse_arguments(argv)
    assert refused.value.usage.startswith("usage: python -m daemon")
    return str(refused.value)


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        ((), []),
        (("sync",), []),
        (("sync", "--once"), ["once"]),
        (("--once", "sync"), ["once"]),
        *[((command,), [command]) for command in COMMANDS[1:]],
        *[((f"--{mode.replace('_', '-')}",), [mode]) for mode in MODES],
        (("status", "--status"), ["status"]),
        (("demo", "--once"), ["demo", "once"]),
        (("status", "--data-dir", "x", "--log-format", "json"), ["status"]),
    ],
)
def test_commands_mean_what_their_flags_mean(argv, expected):
    assert expected == modes(*argv)


@pytest.mark.parametrize(
    "argv",
    [
        ("--once", "20", "10"),
        ("20", "10"),
        ("20", "--once", "10"),
        ("sync", "20", "10", "--once"),
        ("demo", "20", "10"),
        ("--once", "--actors", "0001*", "20", "10"),
    ],
)
def test_two_numbers_are_taken_wherever_they_stand(argv):
    arguments = parse_arguments(argv)
    assert (20, 10) == (arguments.workers_per_actor, arguments.concurrent_actors)


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("--onc", "--once"),
        ("-once", "--once"),
        ("\N{EM DASH}once", "--once"),
        ("--data_dir", "--data-dir"),
        ("--worker-per-actor=5", "--workers-per-actor"),
        ("--workers", "--workers-per-actor"),
        ("--log", "--log-format or --log-level"),
        ("--excludes", "--exclude"),
        ("--regoin", "--region"),
        ("stauts", "status"),
        ("Reload", "reload"),
        ("snyc", "sync"),
        ("once", "--once"),
        ("dryrun", "--dry-run"),
        ("help", "--help"),
    ],
)
def test_misspelled_word_gets_did_you_mean(word, meant):
    said = refusal(word)
    assert said.startswith(("unknown flag ", "unknown command "))
    assert said.endswith(f": did you mean {meant}?")


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (("--xyzzy",), "unknown flag --xyzzy"),
        (("xyzzy",), "unknown command 'xyzzy'; the commands are sync, status, reload, demo; for flags see --help"),
        (("w" * 40,), "unknown command ***; the commands are sync, status, reload, demo; for flags see --help"),
        (("--token=secret",), "unknown flag --token"),
        (("status", "5"), "status takes no '5'"),
        (("reload", "--status"), "reload is not allowed with --status"),
        (("sync", "--dry-run", "status"), "sync is not allowed with --dry-run"),
        (("--once", "20", "many"), "'many' is not a whole number from 1 to 256"),
        (("--once", "1.5", "2"), "'1.5' is not a whole number from 1 to 256"),
        (("--once", "20x", "2"), "'20x' is not a whole number from 1 to 256"),
    ],
)
def test_other_slips_are_told_in_words(argv, said):
    assert refusal(*argv).startswith(said)


@pytest.mark.parametrize("flag", ["--actors", "--exclude"])
@pytest.mark.parametrize("globs", [("a", "b"), ("0001", "0002"), ("0001", "0002", "0003"), ("a", "1", "2", "3")])
@pytest.mark.parametrize("form", ["{flag} {first}", "{flag}={first}"])
def test_second_glob_says_to_repeat_the_flag(flag, globs, form):
    argv = [*form.format(flag=flag, first=globs[0]).split(), *globs[1:], "--once"]
    assert f"{flag} takes one GLOB: repeat it, as {flag} 'a*' {flag} 'b*', in quotes" == refusal(*argv)


def test_mode_refuses_the_settings_that_it_ignores():
    arguments = parse_arguments(["demo", "--report", "x", "--actors", "a*", "--no-anonymous"])
    with pytest.raises(UsageError, match=r"^--demo ignores --actors, --anonymous: leave that out \(it takes --report\)$"):
        refuse_settings(arguments, ("report",), "--demo")
    refuse_settings(arguments, ("report", "actors", "anonymous"), "--demo")


def test_right_command_line_does_not_import_difflib():
    sys.modules.pop("difflib", None)
    parse_arguments(["sync", "--once", "20", "10", "--actors", "a*"])
    assert "difflib" not in sys.modules
    refusal("--onc")
    assert "difflib" in sys.modules


def test_every_setting_has_a_flag():
    assert [] == [row.name for row in SETTINGS if row.flag is None]
