"""Load the configuration: flag > environment > .env > AWS profile > default, for each setting."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from daemon.config.credentials import ambient_aws
from daemon.config.env_file import EnvFile, default_env_file, read_env_file
from daemon.config.settings import SETTINGS, Config, Setting, setting
from daemon.core.errors import ConfigError
from daemon.core.model import AwsProfile

SEE_EXAMPLE = "see .env.example"
_NO_PROFILE = AwsProfile()


class ConfigProblems(ConfigError):
    """Everything that is wrong with the configuration, at once; `problems` holds at least one error."""

    def __init__(self, problems: Sequence[ConfigError]) -> None:
        hints = dict.fromkeys(problem.hint for problem in problems if problem.hint)
        super().__init__("\n".join(str(problem) for problem in problems), hint="; ".join(hints))
        self.problems = tuple(problems)


class _Sources(NamedTuple):
    """Where a setting can come from, first match wins. `file_name` is what messages call the env file."""

    flags: Mapping[str, object]
    environ: Mapping[str, str]
    dotenv: Mapping[str, str] = {}
    file_name: str = ".env"
    profile: AwsProfile = _NO_PROFILE

    def find(self, row: Setting) -> tuple[object, str]:
        """The value of a setting and the name of its source. Raises ConfigError."""
        given = self.flags.get(row.name)
        if given is not None:
            return tuple(given) if isinstance(given, list) else given, f"flag {row.flag}"
        return self._in_variables(row) or self._in_profile(row) or (row.default, "default")

    def _in_variables(self, row: Setting) -> tuple[object, str] | None:
        dotenv = self.dotenv if row.in_dotenv else {}
        for variables, where in ((self.environ, "the environment"), (dotenv, self.file_name)):
            for name in row.env_names:
                text = variables.get(name, "")
                if not text.strip() or (self.profile.ignores_endpoints and name.startswith("AWS_ENDPOINT_URL")):
                    continue
                try:
                    return row.from_variable(text), f"{name} in {where}"
                except ConfigError as error:
                    raise ConfigError(f"{name}={error} (in {where})", hint=error.hint or SEE_EXAMPLE) from None
        return None

    def _in_profile(self, row: Setting) -> tuple[object, str] | None:
        found = self.profile.values.get(row.name) if row.in_profile else None
        if isinstance(found, ConfigError):
            raise found
        if found is None or (self.profile.ignores_endpoints and row.name == "endpoint_url"):
            return None
        try:
            return row.parse(found.text), found.source
        except ConfigError as error:
            raise ConfigError(f"{row.name} = {error} ({found.source})", hint=error.hint or "correct that file") from None


class _Found(NamedTuple):
    """What loading has found so far."""

    values: dict[str, Any]
    sources: dict[str, str]
    problems: list[ConfigError]

    def take(self, row: Setting, sources: _Sources) -> None:
        try:
            self.values[row.name], self.sources[row.name] = sources.find(row)
        except ConfigError as error:
            self.problems.append(error)


def load_config(
    flags: Mapping[str, object],
    environ: Mapping[str, str],
    working_dir: Path,
    *,
    find_profile: Callable[[Mapping[str, str]], AwsProfile] = lambda _: _NO_PROFILE,
    previous: Config | None = None,
) -> Config:
    """The configuration that flags, environment, .env and AWS profile give.

    `flags`: field -> parsed value, None where not given; other keys are ignored. An empty variable is not set. A relative
    --env-file and `.env` are resolved against `working_dir`; other paths stay as given.
    `find_profile`: environment -> the AWS profile that it selects. `previous`: the configuration in force, at a reload.
    Raises ConfigProblems with everything that is wrong.
    """
    found = _Found({}, {}, [])
    found.take(setting("env_file"), _Sources(flags, environ))
    path, file_name = _env_file(found, working_dir)
    kept = None
    if previous is not None and (path == previous.env_file or (path is None and previous.dotenv_once)):
        # the pipe of the start may be gone by now
        path, kept = previous.env_file, EnvFile(previous.dotenv, once=previous.dotenv_once)
    read = EnvFile() if path is None else read_env_file(path, kept)
    found.problems.extend(read.problems)
    sources = _Sources(flags, environ, read.entries, file_name, find_profile({**ambient_aws(read.entries), **environ}))
    for row in SETTINGS:
        if row.name != "env_file":
            found.take(row, sources)
    found.problems.extend(_contradictions(found.values, found.sources))
    if found.problems:
        raise ConfigProblems(found.problems)
    return Config(
        **{**found.values, "env_file": path},
        dotenv=MappingProxyType(dict(read.entries)),
        dotenv_once=read.once,
        sources=MappingProxyType(found.sources),
    )


def _env_file(found: _Found, working_dir: Path) -> tuple[Path | None, str]:
    """The env file to read, None if there is none, and its name for messages."""
    named = found.values.get("env_file")
    if named is None:  # an unusable name is a problem; no other file replaces it
        return None, ".env"
    if found.sources["env_file"] == "default":
        return default_env_file(working_dir), ".env"
    return working_dir / named, str(named)


def _contradictions(values: Mapping[str, Any], sources: Mapping[str, str]) -> Iterator[ConfigError]:
    quiet, longest = values.get("quiet_seconds"), values.get("max_wait_seconds")
    if quiet is not None and longest is not None and quiet > longest:
        yield ConfigError(
            f"quiet_seconds {quiet:g} ({sources['quiet_seconds']}) is more than"
            f" max_wait_seconds {longest:g} ({sources['max_wait_seconds']})",
            hint="lower ACTORSYNC_QUIET_SECONDS, or raise ACTORSYNC_MAX_WAIT_SECONDS",
        )


def reread_dotenv(config: Config, working_dir: Path) -> Mapping[str, str]:
    """The current entries of the configuration's env file, for renewed keys.

    A `.env` that appeared or went since the start is followed. A pipe is not read again: its entries stay.
    Raises ConfigProblems where the file is unusable, or where a file that was named is gone.
    """
    path = config.env_file if config.sources["env_file"] != "default" else default_env_file(working_dir)
    if path is None and not config.dotenv_once:
        return {}
    read = read_env_file(path or Path(), EnvFile(config.dotenv, once=config.dotenv_once))
    if read.problems:
        raise ConfigProblems(read.problems)
    return read.entries


def unknown_settings(environ: Mapping[str, str], dotenv: Mapping[str, str]) -> tuple[str, ...]:
    """A warning for each ACTORSYNC_ name that is no setting; values are not shown."""
    sentences: list[str] = []
    for variables, where in ((environ, "the environment"), (dotenv, ".env")):
        for name in sorted(variables):
            # show only what looks like a name: in `ACTORSYNC_KEY:abc=`, all before the = is the "name"
            if re.fullmatch(r"ACTORSYNC_[A-Za-z0-9_]{0,60}", name, re.IGNORECASE):
                sentences += _warnings(name, where, in_dotenv=variables is dotenv)
    return tuple(sentences)


def _warnings(name: str, where: str, *, in_dotenv: bool) -> Iterator[str]:
    rows = {env_name: row for row in SETTINGS for env_name in row.env_names}
    if name in rows:
        if in_dotenv and not rows[name].in_dotenv:
            yield f"{name} in {where} has no effect: it is read from the environment only"
        return
    import difflib  # needed only for a misspelled name

    near = difflib.get_close_matches(name.upper(), rows, n=1)
    advice = f"did you mean {near[0]}?" if near else SEE_EXAMPLE
    yield f"{name} in {where} is not a setting: {advice}"
