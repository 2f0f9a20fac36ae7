"""Settings: where each comes from, what is refused and how it is told, and that no secret is."""

import argparse
import errno
import os
import re
from pathlib import Path

import pytest

from daemon import config as config_package
from daemon.adapters.disk import FLOOR_BYTES
from daemon.config import (
    SETTINGS,
    Config,
    ConfigProblems,
    Setting,
    Size,
    add_setting_flags,
    ambient_aws,
    effective_settings,
    find_static_credentials,
    incomplete_credentials,
    load_config,
    reread_dotenv,
    setting,
    settings_table,
    unknown_settings,
)
from daemon.config.env_file import read_env_file
from daemon.core.errors import ConfigError
from daemon.core.model import Secret

EXAMPLE = Path(__file__).parents[2] / ".env.example"
SECRET = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"

# name -> three texts of three different values, none of them the default: for the flag, the environment, .env
SAMPLES = {
    "data_dir": ("from-flag", "from-environment", "from-dotenv"),
    "workers_per_actor": ("1", "2", "256"),
    "concurrent_actors": ("1", "2", "256"),
    "processes": ("1", "2", "64"),
    "actors": ("a*", "b*", "c*"),
    "exclude": ("a*", "b*", "c*"),
    "endpoint_url": ("http://flag:1", "https://environment", "http://dotenv:65535"),
    "anonymous": ("yes", "no", "yes"),
    "request_payer": ("yes", "no", "yes"),
    "log_format": ("console", "json", "console"),
    "log_level": ("debug", "warning", "error"),
    "report": ("-", "b.json", "c.json"),
    "min_free": ("0", "500M", "1G"),
    "strict": ("yes", "no", "yes"),
    "connect_timeout": ("1", "2s", "3.5"),
    "read_timeout": ("1", "2s", "3.5"),
    "image_timeout": ("1", "2s", "3.5"),
    "max_attempts": ("1", "2", "20"),
    "outage_seconds": ("0", "90", "2.5s"),
    "quiet_seconds": ("0.1", "0.2s", "3"),
    "max_wait_seconds": ("4", "5s", "6.5"),
    "rescan_seconds": ("1", "2s", "3.5"),
    "alive_seconds": ("1", "2s", "3.5"),
    "grace_seconds": ("0", "2s", "3.5"),
    "accept_opaque_etags": ("yes", "no", "yes"),
    "region": ("us-gov-west-1", "eu-central-1", "us-east-2"),
    "ca_bundle": ("/flag.pem", "/environment.pem", "/dotenv.pem"),
}


def parse_flags(*argv: str) -> dict[str, object]:
    parser = argparse.ArgumentParser()
    add_setting_flags(parser)
    return vars(parser.parse_args(argv))


def as_argv(row: Setting, text: str) -> list[str]:
    if isinstance(row.default, bool):
        return [f"--{'' if text == 'yes' else 'no-'}{row.flag.removeprefix('--')}"]
    return [row.flag, text]


def write_dotenv(folder: Path, text: str | bytes) -> Path:
    path = folder / ".env"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def problems_of(
    flags: dict[str, object] | None = None, environ: dict[str, str] | None = None, *, folder: Path
) -> tuple[ConfigError, ...]:
    with pytest.raises(ConfigProblems) as caught:
        load_config(flags or {}, environ or {}, folder)
    return caught.value.problems


# --- the table --------------------------------------------------------------------------------------------------------


def test_the_table_and_the_fields_of_config_are_the_same():
    assert (*(row.name for row in SETTINGS), "dotenv", "dotenv_once", "sources") == Config._fields


def test_every_setting_is_named_after_its_field():
    for row in SETTINGS:
        assert ("--" + row.name.replace("_", "-"), "ACTORSYNC_" + row.name.upper()) == (row.flag, row.env_names[0])
    names = [name for row in SETTINGS for name in row.env_names]
    assert len(set(names)) == len(names)


def test_defaults_are_those_of_the_design(tmp_path):
    config = load_config({}, {}, tmp_path)
    assert {
        "data_dir": Path("data"),
        "workers_per_actor": 10,
        "concurrent_actors": 5,
        "processes": None,
        "actors": (),
        "exclude": (),
        "endpoint_url": None,
        "anonymous": False,
        "request_payer": False,
        "log_format": "auto",
        "log_level": "info",
        "report": None,
        "min_free": FLOOR_BYTES,
        "strict": False,
        "connect_timeout": 5.0,
        "read_timeout": 30.0,
        "image_timeout": 60.0,
        "max_attempts": 5,
        "outage_seconds": 120.0,
        "quiet_seconds": 0.3,
        "max_wait_seconds": 3.0,
        "rescan_seconds": None,
        "alive_seconds": 300.0,
        "grace_seconds": 10.0,
        "accept_opaque_etags": False,
        "env_file": None,
        "region": None,
        "ca_bundle": None,
    } == {row.name: getattr(config, row.name) for row in SETTINGS}
    assert {"default"} == set(config.sources.values())


@pytest.mark.parametrize("row", SETTINGS, ids=lambda row: row.name)
def test_a_default_is_a_value_that_could_have_been_set(row):
    text = row.text(row.default)
    if text:
        assert row.default == row.from_variable(text)
    else:
        assert row.default in (None, ())
        assert row.unset


# --- precedence -------------------------------------------------------------------------------------------------------


def test_there_are_samples_for_every_setting():
    assert {row.name for row in SETTINGS} - {"env_file"} == set(SAMPLES)


@pytest.mark.parametrize("name", SAMPLES)
def test_flag_goes_before_environment_before_dotenv_before_default(name, tmp_path):
    row = setting(name)
    flag_text, environ_text, dotenv_text = SAMPLES[name]
    variable = row.env_names[0]
    flags, environ = {}, {}

    def expect(text: str, source: str) -> None:
        config = load_config(flags, environ, tmp_path)
        expected = row.from_variable(text) if text else row.default
        assert (expected, source) == (getattr(config, name), config.sources[name])

    expect("", "default")
    write_dotenv(tmp_path, f"{variable}='{dotenv_text}'\n")
    expect(dotenv_text, f"{variable} in .env")
    environ = {variable: environ_text}
    expect(environ_text, f"{variable} in the environment")
    if row.flag:
        flags = parse_flags(*as_argv(row, flag_text))
        expect(flag_text, f"flag {row.flag}")


def test_a_flag_takes_back_a_boolean_of_the_environment(tmp_path):
    config = load_config(parse_flags("--no-anonymous"), {"ACTORSYNC_ANONYMOUS": "yes"}, tmp_path)
    assert (False, "flag --anonymous") == (config.anonymous, config.sources["anonymous"])


@pytest.mark.parametrize("row", [row for row in SETTINGS if len(row.env_names) > 1], ids=lambda row: row.name)
def test_aliases_are_tried_in_order_environment_before_file(row, tmp_path):
    texts = {name: f"http://host{i}" if row.name == "endpoint_url" else f"region-{i}" for i, name in enumerate(row.env_names)}
    for first in range(len(row.env_names)):
        left = {name: texts[name] for name in row.env_names[first:]}
        assert texts[row.env_names[first]] == getattr(load_config({}, left, tmp_path), row.name)
    write_dotenv(tmp_path, f"{row.env_names[0]}={texts[row.env_names[0]]}\n")
    last = row.env_names[-1]
    assert texts[last] == getattr(load_config({}, {last: texts[last]}, tmp_path), row.name)


@pytest.mark.parametrize("empty", ["", " ", "\t"])
def test_an_empty_variable_is_not_set(empty, tmp_path):
    write_dotenv(tmp_path, "ACTORSYNC_WORKERS_PER_ACTOR=7\nACTORSYNC_REPORT=\n")
    config = load_config({}, {row.env_names[0]: empty for row in SETTINGS}, tmp_path)
    assert (7, Path("data"), None) == (config.workers_per_actor, config.data_dir, config.report)


def test_keys_of_flags_that_are_no_settings_are_ignored(tmp_path):
    assert load_config({}, {}, tmp_path) == load_config({"once": True, "workers": None}, {}, tmp_path)


# --- values -----------------------------------------------------------------------------------------------------------

SECONDS = [row.name for row in SETTINGS if row.metavar == "SECONDS"]


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("workers_per_actor", "1", 1),
        ("workers_per_actor", " 256 ", 256),
        ("max_attempts", "20", 20),
        ("actors", "0001_*", ("0001_*",)),
        ("actors", " a* , b?,", ("a*", "b?")),
        ("endpoint_url", "http://localhost:9000/", "http://localhost:9000"),
        ("endpoint_url", "HTTPS://S3.Example.COM", "https://s3.example.com"),
        ("endpoint_url", "http://minio_1:9000", "http://minio_1:9000"),
        ("endpoint_url", "http://[::1]:9000", "http://[::1]:9000"),
        *[("anonymous", text, True) for text in ("yes", "true", "1", "on", "YES")],
        *[("accept_opaque_etags", text, False) for text in ("no", "false", "0", "off", "Off")],
        ("log_level", "INFO", "info"),
        ("report", "-", "-"),
        ("grace_seconds", "0", 0.0),
        ("outage_seconds", "0", 0.0),
        *[
            ("connect_timeout", text, expected)
            for text, expected in (("0.3", 0.3), ("5", 5), ("5s", 5), ("5 s", 5), (".5", 0.5))
        ],
        ("region", "eu-west-1", "eu-west-1"),
        *[
            ("min_free", text, Size(size_bytes))
            for text, size_bytes in (
                ("0", 0),
                ("1500000", 1_500_000),
                ("500k", 500 * 1024),
                ("256M", 256 * 1024**2),
                ("1.5 G", 3 * 512 * 1024**2),
                ("2GiB", 2 * 1024**3),
                ("2gb", 2 * 1024**3),
            )
        ],
    ],
)
def test_value_is_taken(name, text, expected, tmp_path):
    config = load_config({}, {setting(name).env_names[0]: text}, tmp_path)
    assert expected == getattr(config, name)
    assert type(expected) is type(getattr(config, name)) or isinstance(getattr(config, name), float)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        *[
            (name, text)
            for name in ("workers_per_actor", "concurrent_actors")
            for text in ("0", "257", "-1", "many", "5.0", "1_0")
        ],
        ("workers_per_actor", "٣"),
        ("max_attempts", "0"),
        ("max_attempts", "21"),
        ("actors", ","),
        *[("endpoint_url", text) for text in ("localhost:9000", "ftp://host", "http://", "http://host/path", "http://host//")],
        *[
            ("endpoint_url", text)
            for text in ("http://host:0", "http://host:65536", "http://host:", "http://a..b", "http://[::g]")
        ],
        *[("endpoint_url", text) for text in ("http://host?x=1", "http://host#x", "http://\u212aelvin", "http://ho st")],
        ("anonymous", "maybe"),
        ("log_format", "xml"),
        ("log_level", "loud"),
        *[
            (name, text)
            for name in SECONDS
            for text in ("-1", "nan", "inf", "1e3", "soon", "500ms", "2m", "9" * 400, "31536001")
        ],
        *[("min_free", text) for text in ("-1", "256X", "M", "1e9", "inf", "1_000", "9" * 400)],
        *[(name, "0") for name in SECONDS if name not in ("grace_seconds", "outage_seconds")],
        *[("region", text) for text in ("us west", "evil.example.com/", "-a", "a-", "a" * 64)],
    ],
)
def test_value_is_refused_wherever_it_comes_from(name, text, tmp_path, capsys):
    row = setting(name)
    variable = row.env_names[0]
    (problem,) = problems_of(environ={variable: text}, folder=tmp_path)
    assert str(problem).startswith(f"{variable}=")
    assert str(problem).endswith(" (in the environment)")
    assert problem.hint
    write_dotenv(tmp_path, f"{variable}='{text}'\n")
    (problem,) = problems_of(folder=tmp_path)
    assert str(problem).endswith(" (in .env)")
    if row.flag and row.metavar and name != "actors":
        with pytest.raises(SystemExit) as ended:
            parse_flags(f"{row.flag}={text}")
        assert 2 == ended.value.code
        assert f"error: argument {row.flag}: " in capsys.readouterr().err


def test_the_message_names_variable_value_and_source(tmp_path):
    (problem,) = problems_of(environ={"ACTORSYNC_CONCURRENT_ACTORS": "many"}, folder=tmp_path)
    assert "ACTORSYNC_CONCURRENT_ACTORS='many' is not a whole number from 1 to 256 (in the environment)" == str(problem)
    assert "see .env.example" == problem.hint


def test_a_wrong_flag_is_told_in_our_words(capsys):
    with pytest.raises(SystemExit):
        parse_flags("--concurrent-actors", "many")
    expected = "error: argument --concurrent-actors: 'many' is not a whole number from 1 to 256 (see --help)"
    assert expected in capsys.readouterr().err


@pytest.mark.parametrize("flag", ["--data-dir", "--report", "--env-file", "--actors", "--exclude", "--endpoint-url"])
def test_an_empty_flag_is_a_usage_error(flag, capsys):
    with pytest.raises(SystemExit) as ended:
        parse_flags(flag, "")
    assert 2 == ended.value.code


def test_a_nul_in_a_path_is_refused(tmp_path):
    write_dotenv(tmp_path, "ACTORSYNC_DATA_DIR=da\0ta\n")
    (problem,) = problems_of(folder=tmp_path)
    assert "ACTORSYNC_DATA_DIR" in str(problem)


@pytest.mark.parametrize("name", ["actors", "exclude"])
def test_glob_flag_repeats(name, tmp_path):
    flags = parse_flags(f"--{name}", "a*", f"--{name}", "b")
    assert ("a*", "b") == getattr(load_config(flags, {f"ACTORSYNC_{name.upper()}": "z"}, tmp_path), name)


@pytest.mark.parametrize("flag", ["--actors", "--exclude"])
def test_comma_in_a_glob_flag_says_to_repeat_it(flag, capsys):
    with pytest.raises(SystemExit) as ended:
        parse_flags(flag, "a,b")
    assert 2 == ended.value.code
    assert f"argument {flag}: 'a,b' holds a comma: repeat the flag, as {flag} 'a*' {flag} 'b*'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("size_bytes", "text"), [(0, "0"), (1, "1"), (1_500_000, "1500000"), (1536, "1536"), (2048, "2K"), (3 * 1024**3, "3G")]
)
def test_size_is_shown_as_it_is_given(size_bytes, text):
    row = setting("min_free")
    assert text == row.text(Size(size_bytes))
    assert size_bytes == row.from_variable(text)


def test_quiet_longer_than_max_wait_is_refused(tmp_path):
    flags = parse_flags("--quiet-seconds", "5")
    (problem,) = problems_of(flags, folder=tmp_path)
    assert "quiet_seconds 5 (flag --quiet-seconds) is more than max_wait_seconds 3 (default)" == str(problem)
    assert problem.hint
    assert 5.0 == load_config(parse_flags("--quiet-seconds", "5", "--max-wait-seconds", "5"), {}, tmp_path).quiet_seconds


def test_all_problems_are_told_at_once(tmp_path):
    write_dotenv(tmp_path, "ACTORSYNC_LOG_LEVEL=loud\nnot a setting\nACTORSYNC_MAX_ATTEMPTS=0\n")
    environ = {"ACTORSYNC_WORKERS_PER_ACTOR": "x", "ACTORSYNC_QUIET_SECONDS": "9"}
    with pytest.raises(ConfigProblems) as caught:
        load_config({}, environ, tmp_path)
    wanted = ["line 2", "WORKERS_PER_ACTOR='x'", "LOG_LEVEL='loud'", "MAX_ATTEMPTS='0'", "quiet_seconds 9"]
    found = [str(problem) for problem in caught.value.problems]
    assert len(wanted) == len(found)
    assert all(part in text for part, text in zip(wanted, found, strict=True))
    assert all(part in str(caught.value) for part in wanted)
    assert "see .env.example" in caught.value.hint


# --- flags ------------------------------------------------------------------------------------------------------------


def test_flags_that_were_not_given_are_none():
    assert {row.name: None for row in SETTINGS if row.flag} == parse_flags()


def test_help_says_default_and_variable_of_every_flag():
    parser = argparse.ArgumentParser()
    add_setting_flags(parser)
    text = " ".join(parser.format_help().split())
    for row in SETTINGS:
        if row.flag:
            assert f"(default {row.shown(row.default)}; {', '.join(row.env_names)})" in text
            assert row.help in text
    assert "(default .env; ACTORSYNC_ENV_FILE)" in text


# --- .env -------------------------------------------------------------------------------------------------------------


def test_env_file_flag_wins_over_environment_over_working_directory(tmp_path):
    write_dotenv(tmp_path, "ACTORSYNC_MAX_ATTEMPTS=1\n")
    (tmp_path / "two").write_text("ACTORSYNC_MAX_ATTEMPTS=2\n")
    (tmp_path / "three").write_text("ACTORSYNC_MAX_ATTEMPTS=3\n")

    def loaded(flags, environ):
        config = load_config(flags, environ, tmp_path)
        return config.max_attempts, config.env_file, config.sources["env_file"], config.sources["max_attempts"]

    variable = "ACTORSYNC_MAX_ATTEMPTS in"
    environ = {"ACTORSYNC_ENV_FILE": "two"}
    assert (1, tmp_path / ".env", "default", f"{variable} .env") == loaded({}, {})
    assert (2, tmp_path / "two", "ACTORSYNC_ENV_FILE in the environment", f"{variable} two") == loaded({}, environ)
    assert (3, tmp_path / "three", "flag --env-file", f"{variable} three") == loaded(
        parse_flags("--env-file", "three"), environ
    )


def test_a_dotenv_names_no_other_dotenv(tmp_path):
    write_dotenv(tmp_path, "ACTORSYNC_ENV_FILE=/nowhere\n")
    assert tmp_path / ".env" == load_config({}, {}, tmp_path).env_file


@pytest.mark.parametrize("kind", ["missing", "directory"])
def test_named_env_file_that_cannot_be_read_is_a_problem(kind, tmp_path):
    if kind == "directory":
        (tmp_path / "named").mkdir()
    for flags, environ in ((parse_flags("--env-file", "named"), {}), ({}, {"ACTORSYNC_ENV_FILE": "named"})):
        first, second = problems_of(flags, {**environ, "ACTORSYNC_LOG_LEVEL": "loud"}, folder=tmp_path)
        assert f"{tmp_path / 'named'} cannot be read: " in str(first)
        assert "--env-file" in first.hint
        assert "LOG_LEVEL" in str(second)


def test_unreadable_dotenv_is_a_problem_absent_one_is_not(tmp_path):
    (tmp_path / ".env").symlink_to("gone")
    (problem,) = problems_of(folder=tmp_path)
    assert ".env cannot be read: No such file or directory" in str(problem)
    (tmp_path / ".env").unlink()
    assert load_config({}, {}, tmp_path).env_file is None


def test_a_dotenv_without_permission_is_a_problem(tmp_path, monkeypatch):
    write_dotenv(tmp_path, "")

    def injected_refusal(path: Path, flags: int) -> int:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(os, "open", injected_refusal)  # a mode would not do: tests may run as root
    (problem,) = problems_of(folder=tmp_path)
    assert f"{tmp_path / '.env'} cannot be read: Permission denied" == str(problem)


def test_a_virtual_environment_named_dotenv_is_no_problem(tmp_path):
    (tmp_path / ".env").mkdir()
    assert load_config({}, {}, tmp_path).env_file is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A=1\nB=2\n", {"A": "1", "B": "2"}),
        ("export A=1", {"A": "1"}),
        ("\ufeffA=1\r\nB=2\r\n", {"A": "1", "B": "2"}),
        ("# comment\n\n  A = 1 # why\n", {"A": "1"}),
        ("A=$HOME${B}\nB='$x'\n", {"A": "$HOME${B}", "B": "$x"}),
        ('A=\'x y # z\'\nB="q\\"q"\n', {"A": "x y # z", "B": 'q"q'}),
        ("A=\nB=\n", {"A": "", "B": ""}),
        ("A=1\nA=2\n", {"A": "2"}),
        ("", {}),
    ],
)
def test_dotenv_is_read_as_written(text, expected, tmp_path):
    assert expected == read_env_file(write_dotenv(tmp_path, text)).entries


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        (f"{SECRET}\n", [1]),
        (f"A=1\n{SECRET} {SECRET}\n", [2]),
        (f"A=1\r\n\r\n\r\n  {SECRET}\r\nB=2", [4]),
        (f"A='{SECRET}\nB=2\n", [1]),
        (f"AWS_ACCESS_SECRET: {SECRET}\n={SECRET}\nB=2\n", [1, 2]),
        (b"A=1\nB=" + SECRET.encode() + b"\xff\n", [2]),
    ],
)
def test_malformed_lines_are_told_by_number_and_never_shown(text, lines, tmp_path):
    path = write_dotenv(tmp_path, text)
    told = read_env_file(path).problems
    assert [f"{path} line {line} " for line in lines] == [re.match(r".* line \d+ ", str(problem))[0] for problem in told]
    assert not any(SECRET[:8] in f"{error!s}{error!r}{error.hint}{error.__context__!r}" for error in told)
    assert len(lines) == len(problems_of(folder=tmp_path))


def test_keys_can_be_read_again(tmp_path):
    absent = load_config({}, {}, tmp_path)
    assert {} == reread_dotenv(absent, tmp_path)
    path = write_dotenv(tmp_path, "AWS_ACCESS_KEY=new\n")
    assert {"AWS_ACCESS_KEY": "new"} == reread_dotenv(absent, tmp_path)
    there = load_config({}, {}, tmp_path)
    path.unlink()
    assert {} == reread_dotenv(there, tmp_path)


def test_named_env_file_that_is_gone_is_reported_on_rereading(tmp_path):
    path = tmp_path / "named"
    path.write_text("AWS_ACCESS_KEY=old\n")
    config = load_config(parse_flags("--env-file", "named"), {}, tmp_path)
    path.write_text("AWS_ACCESS_KEY=new\n")
    assert {"AWS_ACCESS_KEY": "new"} == reread_dotenv(config, tmp_path)
    path.unlink()
    with pytest.raises(ConfigProblems):
        reread_dotenv(config, tmp_path)


@pytest.mark.parametrize(
    ("environ", "dotenv", "expected"),
    [
        (
            {"ACTORSYNC_WORKERS_PER_ACTR": SECRET},
            {},
            ("ACTORSYNC_WORKERS_PER_ACTR in the environment is not a setting: did you mean ACTORSYNC_WORKERS_PER_ACTOR?",),
        ),
        (
            {},
            {"ACTORSYNC_ZZZZZZZZZZZZZZZZZ": SECRET},
            ("ACTORSYNC_ZZZZZZZZZZZZZZZZZ in .env is not a setting: see .env.example",),
        ),
        (
            {"actorsync_data_dir": "x"},
            {},
            ("actorsync_data_dir in the environment is not a setting: did you mean ACTORSYNC_DATA_DIR?",),
        ),
        (
            {"ACTORSYNC_ENV_FILE": "x"},
            {"ACTORSYNC_ENV_FILE": "x"},
            ("ACTORSYNC_ENV_FILE in .env has no effect: it is read from the environment only",),
        ),
        ({name: "" for row in SETTINGS for name in row.env_names}, {"AWS_ACCESS_KEY": "", "DATABASE_URL": ""}, ()),
        ({}, {f"ACTORSYNC_KEY:{SECRET}": ""}, ()),
    ],
)
def test_unknown_names_are_warned_of(environ, dotenv, expected):
    assert expected == unknown_settings(environ, dotenv)


def test_unknown_names_stop_nothing(tmp_path):
    load_config({}, {"ACTORSYNC_FUTURE": "x"}, tmp_path)


# --- credentials ------------------------------------------------------------------------------------------------------

OURS = ("AWS_ACCESS_KEY", "AWS_ACCESS_SECRET")
THEIRS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")


def pair(names: tuple[str, str], mark: str, token: str = "") -> dict[str, str]:
    return {names[0]: f"AKIA{mark}", names[1]: f"secret-{mark}"} | ({"AWS_SESSION_TOKEN": token} if token else {})


def write_credentials(folder: Path, **texts: str) -> dict[str, str]:
    for name, text in texts.items():
        (folder / name).write_text(text)
    return {"CREDENTIALS_DIRECTORY": str(folder)}


def test_credentials_come_from_the_first_complete_source(tmp_path):
    environ = write_credentials(tmp_path, aws_access_key="AKIAsystemd\n", aws_access_secret="secret-systemd\n")
    environ |= pair(OURS, "ours-environ") | pair(THEIRS, "theirs-environ")
    dotenv = pair(OURS, "ours-dotenv") | pair(THEIRS, "theirs-dotenv")
    expected = [
        ("systemd", "aws_access_key in $CREDENTIALS_DIRECTORY", environ, "CREDENTIALS_DIRECTORY"),
        ("ours-environ", "AWS_ACCESS_KEY in the environment", environ, "AWS_ACCESS_SECRET"),
        ("ours-dotenv", "AWS_ACCESS_KEY in .env", dotenv, "AWS_ACCESS_KEY"),
        ("theirs-environ", "AWS_ACCESS_KEY_ID in the environment", environ, "AWS_ACCESS_KEY_ID"),
        ("theirs-dotenv", "AWS_ACCESS_KEY_ID in .env", dotenv, "AWS_SECRET_ACCESS_KEY"),
    ]
    for mark, source, variables, half in expected:
        found = find_static_credentials(environ, dotenv)
        assert (f"AKIA{mark}", Secret(f"secret-{mark}"), source) == (found.access_key, found.secret_key, found.source)
        del variables[half]  # the next source's turn
    assert find_static_credentials(environ, dotenv) is None


@pytest.mark.parametrize("names", [OURS, THEIRS])
@pytest.mark.parametrize(
    ("environ_token", "dotenv_token", "pair_in", "expected"),
    [
        ("token-e", "token-d", "environ", "token-e"),
        ("token-e", "token-d", "dotenv", "token-d"),
        ("", "token-d", "environ", None),
        ("token-e", "", "dotenv", None),
        ("token-e", " ", "dotenv", None),
    ],
)
def test_a_session_token_stays_with_the_pair_of_its_source(names, environ_token, dotenv_token, pair_in, expected):
    environ = {"AWS_SESSION_TOKEN": environ_token} | (pair(names, "x") if pair_in == "environ" else {})
    dotenv = {"AWS_SESSION_TOKEN": dotenv_token} | (pair(names, "x") if pair_in == "dotenv" else {})
    assert (Secret(expected) if expected else None) == find_static_credentials(environ, dotenv).session_token


def test_systemd_credentials_have_a_token_of_their_own(tmp_path):
    environ = write_credentials(tmp_path, aws_access_key="AKIA", aws_access_secret="s") | {"AWS_SESSION_TOKEN": "other"}
    assert find_static_credentials(environ, {}).session_token is None
    write_credentials(tmp_path, aws_session_token="token\n")
    assert Secret("token") == find_static_credentials(environ, {}).session_token


def test_a_credentials_directory_that_is_not_there_is_passed_over(tmp_path):
    environ = {"CREDENTIALS_DIRECTORY": str(tmp_path / "gone")} | pair(OURS, "x")
    assert "AKIAx" == find_static_credentials(environ, {}).access_key
    assert () == incomplete_credentials(environ, {})


@pytest.mark.parametrize("where", ["environment", "dotenv", "systemd"])
@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("bad", ["two words", "two\nlines", "sch\u00f6n", "nul\0"])
def test_impossible_key_is_refused_and_not_shown(where, place, bad, tmp_path):
    texts = ["AKIAX", "secret-x", "token-x"]
    texts[place] = bad
    variables = dict(zip((*OURS, "AWS_SESSION_TOKEN"), texts, strict=True))
    environ, dotenv = (variables, {}) if where == "environment" else ({}, variables)
    if where == "systemd":
        systemd = dict(zip(("aws_access_key", "aws_access_secret", "aws_session_token"), texts, strict=True))
        environ, dotenv = write_credentials(tmp_path, **systemd), {}
    with pytest.raises(ConfigError) as caught:
        find_static_credentials(environ, dotenv)
    assert not any(text in str(caught.value) for text in (bad, *texts))
    assert caught.value.hint


def test_space_around_a_key_is_dropped():
    found = find_static_credentials({"AWS_ACCESS_KEY": " AKIAX\r", "AWS_ACCESS_SECRET": "secret\r"}, {})
    assert ("AKIAX", Secret("secret")) == (found.access_key, found.secret_key)


@pytest.mark.parametrize(
    ("environ", "dotenv", "expected"),
    [
        ({}, {}, ()),
        (pair(OURS, "x"), pair(THEIRS, "x"), ()),
        ({"AWS_ACCESS_KEY": SECRET}, {}, ("AWS_ACCESS_KEY is set in the environment, but AWS_ACCESS_SECRET is not",)),
        ({"AWS_ACCESS_SECRET": SECRET}, {}, ("AWS_ACCESS_SECRET is set in the environment, but AWS_ACCESS_KEY is not",)),
        (
            {"AWS_ACCESS_KEY": SECRET, "AWS_ACCESS_SECRET": " "},
            {"AWS_ACCESS_SECRET": SECRET},
            (
                "AWS_ACCESS_KEY is set in the environment, but AWS_ACCESS_SECRET is not",
                "AWS_ACCESS_SECRET is set in .env, but AWS_ACCESS_KEY is not",
            ),
        ),
        (
            {},
            {"AWS_ACCESS_KEY": SECRET, "AWS_SECRET_ACCESS_KEY": SECRET},
            (
                "AWS_ACCESS_KEY is set in .env, but AWS_ACCESS_SECRET is not",
                "AWS_SECRET_ACCESS_KEY is set in .env, but AWS_ACCESS_KEY_ID is not",
            ),
        ),
    ],
)
def test_halves_of_pairs_are_named(environ, dotenv, expected):
    assert expected == incomplete_credentials(environ, dotenv)


def test_half_a_systemd_pair_is_named(tmp_path):
    environ = write_credentials(tmp_path, aws_access_key="AKIA", aws_access_secret="\n")
    expected = ("aws_access_key is set in $CREDENTIALS_DIRECTORY, but aws_access_secret is not",)
    assert expected == incomplete_credentials(environ, {})


def test_what_boto3_looks_for_itself_is_handed_on():
    handed_on = dict.fromkeys(
        [
            *("AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"),
            *("AWS_ROLE_ARN", "AWS_ROLE_SESSION_NAME", "AWS_WEB_IDENTITY_TOKEN_FILE"),
            *("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_AUTHORIZATION_TOKEN", "AWS_EC2_METADATA_DISABLED"),
            *("AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE"),
            *("HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY", "https_proxy", "http_proxy", "no_proxy"),
        ],
        "x",
    )
    ours = pair(OURS, "x", "token") | pair(THEIRS, "x") | {"AWS_REGION": "x", "AWS_ENDPOINT_URL": "x", "PATH": "x"}
    assert handed_on == ambient_aws(handed_on | ours)
    assert {} == ambient_aws(dict.fromkeys(handed_on, " "))


# --- what is shown ----------------------------------------------------------------------------------------------------


def test_no_secret_is_shown(tmp_path):
    secrets = [SECRET, "hunter2-token", "proxy-password"]
    write_dotenv(
        tmp_path,
        f"AWS_ACCESS_KEY=AKIAIOSFODNN7EXAMPLE\nAWS_ACCESS_SECRET={SECRET}\nAWS_SESSION_TOKEN={secrets[1]}\n"
        f"HTTPS_PROXY=http://user:{secrets[2]}@proxy\n",
    )
    config = load_config({}, {}, tmp_path)
    rows = effective_settings(config, {})
    assert ("credentials", "****MPLE with a session token", "AWS_ACCESS_KEY in .env") == rows[-1]
    shown = f"{config!r}{config}{rows}{settings_table(rows)}{find_static_credentials({}, config.dotenv)!r}"
    assert not [secret for secret in (*secrets, "AKIAIOSFODNN7") if secret in shown]
    assert SECRET == config.dotenv["AWS_ACCESS_SECRET"]


@pytest.mark.parametrize(
    "text",
    [
        f"https://user:{SECRET}@host",
        "https://hunter2@host",
        "http://user:hunter2%40host",
        "http://user:hunter2\uff20host",
        "http://host/?X-Amz-Signature=hunter2",
        "hunter2@x",
        SECRET,
    ],
)
def test_endpoint_that_may_hold_a_secret_is_refused_unshown(text, tmp_path, capsys):
    (problem,) = problems_of(environ={"AWS_ENDPOINT_URL": text}, folder=tmp_path)
    with pytest.raises(SystemExit):
        parse_flags("--endpoint-url", text)
    told = f"{problem}{problem!r}{problem.hint}{problem.__context__!r}{capsys.readouterr()}"
    assert "AWS_ENDPOINT_URL=***" in told
    assert not [secret for secret in ("hunter2", SECRET, "user:") if secret in told]


@pytest.mark.parametrize(
    "row", [row for row in SETTINGS if row.metavar not in ("DIR", "FILE", "GLOB")], ids=lambda row: row.name
)
def test_a_secret_in_the_wrong_place_is_not_echoed(row, tmp_path):
    (problem,) = problems_of(environ={row.env_names[0]: SECRET}, folder=tmp_path)
    assert str(problem).startswith(f"{row.env_names[0]}=*** ")
    assert SECRET not in f"{problem!r}{problem.hint}"


def test_effective_settings_are_complete_and_say_where_from(tmp_path):
    write_dotenv(tmp_path, "ACTORSYNC_READ_TIMEOUT=20\n")
    environ = {"ACTORSYNC_ACTORS": "a,b", "AWS_DEFAULT_REGION": "eu-west-1", "ACTORSYNC_DATA_DIR": "a\nb"}
    config = load_config(parse_flags("--anonymous"), environ, tmp_path)
    rows = {name: (value, source) for name, value, source in effective_settings(config, environ)}
    assert [*(row.name for row in SETTINGS), "credentials"] == list(rows)
    assert ("20", "ACTORSYNC_READ_TIMEOUT in .env") == rows["read_timeout"]
    assert ("a,b", "ACTORSYNC_ACTORS in the environment") == rows["actors"]
    assert ("eu-west-1", "AWS_DEFAULT_REGION in the environment") == rows["region"]
    assert ("yes", "flag --anonymous") == rows["anonymous"]
    assert ("AWS", "default") == rows["endpoint_url"]
    assert (str(tmp_path / ".env"), "default") == rows["env_file"]
    assert "a\\nb" == rows["data_dir"][0]
    assert ("not used", "flag --anonymous") == rows["credentials"]


@pytest.mark.parametrize(
    ("environ", "value", "part"),
    [
        ({}, "no static keys", "boto3"),
        ({"AWS_ACCESS_KEY": "AKIA"}, "no static keys", "AWS_ACCESS_SECRET is not"),
        (pair(OURS, "12345678"), "****5678", "AWS_ACCESS_KEY in the environment"),
        ({"AWS_ACCESS_KEY": "tiny", "AWS_ACCESS_SECRET": "x"}, "****", "AWS_ACCESS_KEY in the environment"),
        ({"AWS_ACCESS_KEY": "two words", "AWS_ACCESS_SECRET": "x"}, "unusable", "AWS_ACCESS_KEY in the environment holds"),
    ],
)
def test_the_credentials_in_force_are_named(environ, value, part, tmp_path):
    *_, (name, shown, source) = effective_settings(load_config({}, environ, tmp_path), environ)
    assert ("credentials", value) == (name, shown)
    assert part in source


def test_the_table_of_settings_is_aligned():
    table = settings_table([("a", "long value", "default"), ("longer_than_setting", "1", "flag --x")])
    assert (
        "setting              value       from\n"
        "a                    long value  default\n"
        "longer_than_setting  1           flag --x"
    ) == table


def test_a_config_does_not_change(tmp_path):
    config = load_config({}, {}, tmp_path)
    with pytest.raises(AttributeError):
        config.data_dir = Path("elsewhere")
    with pytest.raises(TypeError):
        config.dotenv["A"] = "b"


# --- .env.example -----------------------------------------------------------------------------------------------------

ASSIGNMENT = re.compile(r"#?([A-Z0-9_]+)=(.*)")
KEYS = {*OURS, *THEIRS, "AWS_SESSION_TOKEN", "AWS_PROFILE"}


def example_lines() -> list[str]:
    return EXAMPLE.read_text(encoding="utf-8").splitlines()


def example_assignments() -> list[tuple[str, str]]:
    return [match.groups() for line in example_lines() if (match := ASSIGNMENT.fullmatch(line))]


def test_the_example_has_every_name_once_and_no_other():
    known = {name for row in SETTINGS if row.in_dotenv for name in row.env_names}
    assert sorted(known | KEYS) == sorted(name for name, _ in example_assignments())
    text = EXAMPLE.read_text(encoding="utf-8")
    assert all(name in text for row in SETTINGS for name in row.env_names)


def test_the_example_shows_the_defaults_of_the_code():
    shown = dict(example_assignments())
    for row in SETTINGS:
        for name in row.env_names if row.in_dotenv else ():
            assert row.text(row.default) == shown[name], name


def test_the_example_explains_every_setting_in_the_words_of_help():
    lines = example_lines()
    for row in SETTINGS:
        if row.in_dotenv:
            at = next(i for i, line in enumerate(lines) if line.startswith(f"#{row.env_names[0]}="))
            above = []
            while lines[at - 1].startswith("# "):
                at -= 1
                above.insert(0, lines[at])
            assert f"# {row.help}" == above[0]


def test_example_is_valid_with_and_without_comments(tmp_path):
    text = EXAMPLE.read_text(encoding="utf-8")
    uncommented = re.sub(r"(?m)^#(?=[A-Z0-9_]+=)", "", text)
    (tmp_path / "none").mkdir()
    defaults = load_config({}, {}, tmp_path / "none")
    for variant in (text, uncommented):
        write_dotenv(tmp_path, variant)
        config = load_config({}, {}, tmp_path)
        assert {row.name: getattr(defaults, row.name) for row in SETTINGS if row.in_dotenv} == {
            row.name: getattr(config, row.name) for row in SETTINGS if row.in_dotenv
        }
        assert () == unknown_settings({}, config.dotenv)
        assert find_static_credentials({}, config.dotenv) is None
        assert () == incomplete_credentials({}, config.dotenv)
        assert {} == ambient_aws(config.dotenv)


def test_the_example_takes_a_value_in_every_line(tmp_path):
    samples = {setting(name).env_names[0]: texts[2] for name, texts in SAMPLES.items()}
    lines = [
        f"{match[1]}={samples[match[1]]}" if (match := ASSIGNMENT.fullmatch(line)) and match[1] in samples else line
        for line in example_lines()
    ]
    write_dotenv(tmp_path, "\n".join(lines))
    config = load_config({}, {}, tmp_path)
    assert {f"{variable} in .env" for variable in samples} == set(config.sources.values()) - {"default"}


def test_the_example_puts_credentials_first():
    assert list(OURS) == [name for name, _ in example_assignments()][:2]


def test_configuration_reads_the_environment_only_as_an_argument():
    for module in Path(config_package.__file__).parent.glob("*.py"):
        assert not re.findall(r"os\.environ|getenv|load_dotenv", module.read_text(encoding="utf-8"))
