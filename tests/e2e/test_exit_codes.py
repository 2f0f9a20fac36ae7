"""What the program ends with, and says, when it cannot or need not begin."""

import importlib.metadata
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from daemon import __version__
from tests.support.account import ACCESS_KEY, SECRET_KEY
from tests.support.fault_server import ANY, FaultServer, refusing_port
from tests.support.faults import hang_before_head
from tests.support.needs import needs_root
from tests.support.other_user import run_as_other_user
from tests.support.product import COMMAND, ROOT, Product
from tests.support.trees import BUCKET, ActorTree, s3_url
from tests.support.waiting import wait_until

ACTOR = "0001_european_25_male"


@pytest.fixture
def tree(actor_tree: ActorTree, fault_server: FaultServer) -> ActorTree:
    """One actor with three images, one of them there already, on the fault server."""
    folder = actor_tree.actor(ACTOR, images=3)
    actor_tree.upload_to(fault_server)
    (folder / "0001_0.png").write_bytes(actor_tree.expected[folder / "0001_0.png"])
    return actor_tree


# --- 2: usage ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["--once", "20"], "give both numbers or none"),
        (["--once", "20", "10", "5"], "give both numbers or none"),
        (["--once", "20", "10", "--workers-per-actor", "5"], "not both"),
        (["--once", "0", "10"], "'0' is not a whole number from 1 to 256"),
        (["--once", "20", "many"], "'many' is not a whole number"),
        (["--workers-per-actor", "257"], "'257' is not a whole number from 1 to 256"),
        (["--concurrent-actors", "-1"], "--concurrent-actors"),
        (["--read-timeout", "0"], "--read-timeout"),
        (["--log-format", "xml"], "--log-format"),
        (["--endpoint-url", "localhost"], "--endpoint-url"),
        (["--once", "--unknown"], "--unknown"),
        (["--onc"], "--onc"),
        (["--dry-run", "--check-config"], "not allowed with"),
        (["stauts"], "did you mean status?"),
        (["--once", "--actors", "a", "b"], "--actors takes one GLOB: repeat it"),
        (["--once", "--exclude", "a,b"], "repeat the flag"),
        (["--demo", "--once", "--data-dir", "x", "--no-anonymous"], "--demo ignores --data-dir, --anonymous"),
    ],
)
def test_misuse_ends_with_2_and_the_usage(tmp_path, product, args, told):
    finished = product.run(args, tmp_path)

    assert 2 == finished.returncode
    assert "" == finished.stdout
    assert "usage: python -m daemon" in finished.stderr and told in finished.stderr
    assert "Traceback" not in finished.stderr
    assert [] == os.listdir(tmp_path)


def test_old_numbers_mean_what_they_meant(tree, product, fault_server):
    finished = product.run(["--once", "20", "10"], tree.root, env=fault_server.account.environment)

    assert 0 == finished.returncode
    (started,) = finished.events("run.started")
    assert __version__ == started["version"]
    assert (20, 10) == (started["workers_per_actor"], started["concurrent_actors"])


# --- 78: configuration ------------------------------------------------------------------------------------------------


def test_all_problems_of_the_configuration_are_told_at_once(tmp_path, product):
    (tmp_path / ".env").write_text("ACTORSYNC_READ_TIMEOUT=soon\nthis is no line\n")
    env = {"ACTORSYNC_WORKERS_PER_ACTOR": "many", "ACTORSYNC_LOG_LEVEL": "loud"}
    finished = product.run(["--once"], tmp_path, env=env)

    assert 78 == finished.returncode
    for told in ("ACTORSYNC_WORKERS_PER_ACTOR='many'", "ACTORSYNC_LOG_LEVEL='loud'", "ACTORSYNC_READ_TIMEOUT='soon'", "line 2"):
        assert told in finished.stderr
    assert "this is no line" not in finished.stderr
    assert [".env"] == os.listdir(tmp_path)


@pytest.mark.parametrize("mode", ["--once", "--dry-run"])
def test_missing_data_directory_is_told_and_not_made(tmp_path, product, mode):
    finished = product.run([mode], tmp_path)

    assert 78 == finished.returncode
    assert "data" in finished.stderr and "--data-dir" in finished.stderr
    assert [] == os.listdir(tmp_path)


@pytest.mark.parametrize("mode", ["--once", "--dry-run"])
def test_missing_actors_file_is_told(actor_tree, product, mode):
    (actor_tree.data / "actorsData.json").unlink()
    finished = product.run([mode], actor_tree.root)

    assert 78 == finished.returncode
    assert "data/actorsData.json is not there" in finished.stderr and "--data-dir" in finished.stderr
    assert "" == finished.stdout


@pytest.mark.parametrize("mode", ["--once", "--dry-run"])
def test_actors_file_that_is_a_directory_is_told(actor_tree, product, mode):
    (actor_tree.data / "actorsData.json").unlink()
    (actor_tree.data / "actorsData.json").mkdir()
    finished = product.run([mode], actor_tree.root)

    assert 78 == finished.returncode
    assert "actorsData.json is no file" in finished.stderr


@pytest.mark.parametrize("mode", ["--once", "--dry-run"])
def test_glob_that_matches_nothing_is_told(tree, product, mode):
    finished = product.run([mode, "--actors", "0001*", "--actors", "0002*"], tree.root)

    assert 78 == finished.returncode
    assert "--actors '0002*' matches none of the 1 actor" in finished.stderr


def test_check_config_of_what_cannot_start_shows_it_and_fails(tmp_path, product):
    finished = product.run(["--check-config", "--data-dir", "nowhere"], tmp_path)

    assert 78 == finished.returncode
    assert "flag --data-dir" in finished.stdout and "credentials" in finished.stdout
    assert f"there is no data directory {tmp_path}/nowhere" in finished.stderr and "--data-dir" in finished.stderr
    assert [] == os.listdir(tmp_path)


@pytest.mark.parametrize(
    ("args", "env", "told"),
    [
        (["--report", "no/such/report.json"], {}, "the report cannot be written"),
        ([], {"AWS_ACCESS_KEY": "two words", "AWS_ACCESS_SECRET": "x"}, "AWS_ACCESS_KEY in the environment holds a space"),
    ],
)
def test_check_config_fails_where_a_sync_would(tree, product, args, env, told):
    finished = product.run(["--check-config", *args], tree.root, env=env)

    assert 78 == finished.returncode
    assert "credentials" in finished.stdout
    assert told in finished.stderr


def test_excluded_actors_are_neither_planned_nor_synced(tree, product, fault_server):
    tree.actor("0002_asian_30_female", images=1)
    tree.actor("0003_asian_30_female", images=1)
    env = fault_server.account.environment | {"ACTORSYNC_EXCLUDE": "0002*,0009*"}
    planned = product.run(["--dry-run"], tree.root, env=env)
    finished = product.run(["--once", "--exclude", "*_asian_*"], tree.root, env=env)
    none_left = product.run(["--once", "--exclude", "*"], tree.root, env=env)

    assert (0, 0, 78) == (planned.returncode, finished.returncode, none_left.returncode)
    assert "0003_asian" in planned.stdout and "0002_asian" not in planned.stdout
    assert "actorsync: --exclude '0009*' matches no actor\n" == planned.stderr
    assert [ACTOR] == [line["actor"] for line in finished.events("actor.synced")]
    assert [] == finished.events("exclude.unmatched")
    assert "--exclude '*' leaves none of the 3 selected actors" in none_left.stderr


def test_exclude_that_matches_nothing_is_warned_of_once(tree, product, fault_server):
    finished = product.run(["--once", "--exclude", "0002*"], tree.root, env=fault_server.account.environment)

    assert 0 == finished.returncode
    (warning,) = finished.events("exclude.unmatched", level="warning")
    assert "--exclude '0002*' matches no actor" == warning["error"]


def test_missing_credentials_are_told_once(tree, product, fault_server):
    finished = product.run(["--once"], tree.root, env={"AWS_ENDPOINT_URL_S3": fault_server.endpoint_url})

    assert 78 == finished.returncode
    assert "AWS credentials not configured" in finished.stderr
    assert "AWS_ACCESS_KEY" in finished.stderr and "AWS_ACCESS_SECRET" in finished.stderr
    assert 1 == len([line for line in finished.lines if line["level"] == "error"])
    assert () == fault_server.requests


@pytest.mark.parametrize("limit", [100, 277])
def test_too_low_a_limit_of_open_files_is_told(tree, product, limit):
    ended = limited(product, f"-n {limit}", tree, {})

    assert 78 == ended.returncode
    assert f"50 downloads at once need 278 open files, and the limit is {limit}" in ended.stderr
    assert "ulimit -Hn" in ended.stderr


def test_soft_limit_of_open_files_is_raised(tree, product, fault_server):
    ended = limited(product, "-Sn 100", tree, fault_server.account.environment)

    assert 0 == ended.returncode, ended.stderr
    tree.assert_matches()


def limited(product: Product, limit: str, tree: ActorTree, env: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    """A run under a limit of bash's ulimit."""
    script = f'ulimit {limit}; exec "$@"'
    return subprocess.run(
        ["bash", "-c", script, "bash", *COMMAND, "--once"],
        cwd=tree.root,
        env=product.environment(env),
        capture_output=True,
        text=True,
        timeout=30,
    )


def test_removed_working_directory_is_told(tmp_path, product):
    (tmp_path / "gone").mkdir()
    finished = shell(product, 'rmdir ../gone; exec "$@"', "--once", cwd=tmp_path / "gone")

    assert 78 == finished.returncode
    assert "the working directory cannot be used: No such file or directory\n  -> it was removed" in finished.stderr
    assert "Traceback" not in finished.stderr
    assert 0 == shell(product, 'rmdir ../gone; exec "$@"', "--version", cwd=tmp_path / "gone", make=True).returncode


@needs_root
@pytest.mark.parametrize("args", ["", "--once"])
def test_data_directory_below_a_closed_folder_is_told(tmp_path, product, args):
    """Its owner must be told what is closed, also where a daemon would wait for a missing data directory."""
    (tmp_path / "closed" / "data").mkdir(parents=True)
    (tmp_path / "closed").chmod(0o700)
    code = f"import os; os.chdir('/'); status = main([*{args.split()!r}, '--data-dir', {str(tmp_path / 'closed' / 'data')!r}])"
    told = run_as_other_user("from daemon.__main__ import main", f"{code}; print(status)", cwd=tmp_path)

    assert "78\n" == told


# --- 74: standard output ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("args", ["--dry-run", "--dry-run --log-format json", "--check-config", "--help", "--version"])
def test_full_standard_output_ends_with_74(tree, product, args):
    finished = shell(product, 'exec "$@" > /dev/full', *args.split(), cwd=tree.root)

    assert 74 == finished.returncode
    assert "output-unwritable: standard output cannot be written: No space left on device\n  ->" in finished.stderr
    assert "Traceback" not in finished.stderr


def test_lines_or_report_that_find_no_room_end_with_74(tree, product, fault_server):
    env = fault_server.account.environment
    for args in (["--once", "--report", "-"], ["--once"], ["--once", "--log-format", "console"]):
        finished = shell(product, 'exec "$@" > /dev/full', *args, cwd=tree.root, env=env)

        assert 74 == finished.returncode, finished.stderr
        assert "standard output cannot be written: No space left on device" in finished.stderr
        assert "Traceback" not in finished.stderr
        tree.assert_matches()


def test_daemon_on_a_full_standard_output_goes_on(tree, product, fault_server):
    """The disk that its log is on may be full for an hour."""
    script = 'exec "$@" > /dev/full'
    args = [*COMMAND, "--report", "-", "--log-format", "json"]
    command = ("bash", "-c", script, "bash")
    with Product(product.home, command=command).start(args, tree.root, env=fault_server.account.environment) as running:
        running.wait_for("report.failed")
        asked = shell(product, script, "--status", cwd=tree.root)
        assert (74, True) == (asked.returncode, "output-unwritable" in asked.stderr)
        running.send(signal.SIGTERM)
        assert 0 == running.wait()
    tree.assert_matches()


@pytest.mark.parametrize("args", ["--dry-run", "--help", "--check-config"])
def test_closed_pipe_ends_quietly(tree, product, args):
    finished = shell(product, 'set -o pipefail; "$@" | true; exit ${PIPESTATUS[0]}', *args.split(), cwd=tree.root)

    assert finished.returncode in (0, 128 + signal.SIGPIPE)
    assert "" == finished.stderr


def test_full_standard_error_changes_no_status(tree, product):
    finished = shell(product, 'exec "$@" 2> /dev/full', "--once", "--workers-per-actor", "0", cwd=tree.root)

    assert 2 == finished.returncode


def shell(
    product: Product, script: str, *args: str, cwd: Path, env: dict[str, str] | None = None, make: bool = False
) -> "subprocess.CompletedProcess[str]":
    """The product with these arguments as the "$@" of a bash script. `make`: the working directory."""
    if make:
        cwd.mkdir()
    command = ["bash", "-c", script, "bash", *COMMAND, *args]
    return subprocess.run(command, cwd=cwd, env=product.environment(env), capture_output=True, text=True, timeout=30)


# --- 75: another instance ---------------------------------------------------------------------------------------------


def test_second_instance_is_refused_and_told_of_the_first(tree, product, fault_server):
    fault_server.inject(ANY, hang_before_head(), forever=True)
    with product.start(["--once", "--grace-seconds", "0.1"], tree.root, env=fault_server.account.environment) as first:
        wait_until(lambda: fault_server.requests)
        for args in ([], ["--once"]):
            second = product.run(args, tree.root, env=fault_server.account.environment)

            assert 75 == second.returncode
            assert f"process {first.pid}" in second.stderr and "--data-dir" in second.stderr
        first.send(signal.SIGTERM)
        assert 143 == first.wait()
    assert 2 == len(fault_server.requests)


# --- 1: not all is there ----------------------------------------------------------------------------------------------


def test_min_free_holds_in_every_process(tree, product, fault_server):
    for number in range(2, 10):
        tree.actor(f"{number:04}_european_25_male", images=3)
    tree.upload_to(fault_server)
    env = fault_server.account.environment | {"ACTORSYNC_MIN_FREE": "900000G"}
    processes = ["--once", "--processes", "4", "--concurrent-actors", "8"]
    refused = product.run(processes, tree.root, env=env)

    assert 1 == refused.returncode
    assert "disk-full" in {line.get("code") for line in refused.lines}
    assert () == fault_server.requests
    assert 0 == product.run([*processes, "--min-free", "0"], tree.root, env=env).returncode
    tree.assert_matches()


def test_endpoint_that_refuses_fails_the_run(tree, product):
    with refusing_port() as port:
        args = ["--once", "--endpoint-url", f"http://127.0.0.1:{port}", "--anonymous", "--outage-seconds", "1"]
        finished = product.run(args, tree.root)

    assert 1 == finished.returncode
    assert finished.events("run.completed", status="partial", failed=2, skipped=1)


# --- 70: a crash of ours ----------------------------------------------------------------------------------------------


def test_crash_of_ours_is_told_as_one(tree, tmp_path, product):
    (tmp_path / "sabotage.py").write_text(
        "import sys\n"
        "from gevent import monkey\n"
        "monkey.patch_all()\n"
        "import daemon.cli, daemon.commands.dry_run\n"
        "def injected(*_: object) -> None:\n"
        "    raise RuntimeError('injected crash')\n"
        "daemon.commands.dry_run.list_actors = injected\n"
        "sys.exit(daemon.cli.main(['--dry-run']))\n"
    )
    finished = Product(product.home, command=(sys.executable, str(tmp_path / "sabotage.py"))).run([], tree.root)

    assert 70 == finished.returncode
    assert "injected crash" in finished.stderr and "this is a bug, please report it" in finished.stderr


# --- 0: looking only --------------------------------------------------------------------------------------------------


def test_check_config_shows_every_setting_and_no_secret(tree, product):
    (tree.root / ".env").write_text(f"AWS_ACCESS_SECRET={SECRET_KEY}\nACTORSYNC_READ_TIMEOUT=7\n")
    env = {"AWS_ACCESS_KEY": ACCESS_KEY, "AWS_ACCESS_SECRET": SECRET_KEY, "AWS_SESSION_TOKEN": "t0ken" * 20}
    finished = product.run(["--check-config", "--workers-per-actor", "3"], tree.root, env=env)
    rows = {line.split()[0]: line for line in finished.stdout.splitlines()}

    assert 0 == finished.returncode
    assert "flag --workers-per-actor" in rows["workers_per_actor"]
    assert "ACTORSYNC_READ_TIMEOUT in .env" in rows["read_timeout"]
    assert "default" in rows["concurrent_actors"]
    assert "****MPLE" in rows["credentials"]
    for secret in (SECRET_KEY, ACCESS_KEY, "t0ken"):
        assert secret not in finished.stdout + finished.stderr
    assert {".env", "data"} == set(os.listdir(tree.root))


PLAN = f"""\
{ACTOR}: 2 to download, 1 present
    + 0001_1.png  from s3://{BUCKET}/training/{ACTOR}/0001_1.png  (missing)
    + 0001_2.png  from s3://{BUCKET}/training/{ACTOR}/0001_2.png  (empty)

1 actor: 2 to download, 1 present, 0 problems
"""


def test_plan_is_told_and_nothing_is_done(tree, product, fault_server):
    (tree.folder(ACTOR) / "0001_2.png").touch()
    left_over = tree.folder(ACTOR) / ".0001_1.png.4194304.actorsync"
    left_over.touch()
    before = looks_below(tree.root)
    finished = product.run(["--dry-run"], tree.root, env={"AWS_ENDPOINT_URL_S3": fault_server.endpoint_url})

    assert (0, PLAN, "") == (finished.returncode, finished.stdout, finished.stderr)
    assert before == looks_below(tree.root)
    assert () == fault_server.requests


def test_plan_as_json_can_be_read_by_machines(tree, product):
    tree.actor("0002_asian_30_female", images=1, urls=["https://example.com/x.png"])
    tree.actor("0003_asian_30_female", response=b"{")
    finished = product.run(["--dry-run", "--log-format", "json"], tree.root)
    first, second, third, total = (json.loads(line) for line in finished.stdout.splitlines())

    assert 0 == finished.returncode
    source = f"s3://{BUCKET}/training/{ACTOR}/0001_1.png"
    assert (ACTOR, 1, []) == (first["actor"], first["present"], first["problems"])
    assert {"image": "0001_1.png", "source": source, "reason": "missing"} == first["downloads"][0]
    assert ["url-not-s3"] == [problem["code"] for problem in second["problems"]]
    assert "manifest-unparsable" == third["problem"]["code"]
    assert {"total": {"actors": 3, "to_download": 3, "present": 1, "problems": 2}} == total


def test_plan_beside_a_running_instance_is_told(tree, product, fault_server):
    fault_server.inject(ANY, hang_before_head(), forever=True)
    with product.start(["--once", "--grace-seconds", "0.1"], tree.root, env=fault_server.account.environment):
        wait_until(lambda: fault_server.requests)
        finished = product.run(["--dry-run"], tree.root)

    assert 0 == finished.returncode
    assert "2 to download" in finished.stdout


def test_plan_without_a_readable_list_fails_without_a_traceback(tree, product):
    (tree.data / "actorsData.json").write_bytes(b'[{"name": "a"},]')
    finished = product.run(["--dry-run"], tree.root)

    assert 1 == finished.returncode
    assert finished.stderr.startswith("actorsync: manifest-unparsable: actorsData.json is not JSON at line 1 column")
    assert "Traceback" not in finished.stderr


def looks_below(root: Path) -> dict[Path, tuple[int, int]]:
    return {path: (path.lstat().st_size, path.lstat().st_mtime_ns) for path in [root, *root.rglob("*")]}


# --- where and how it is started --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "locale",
    [
        {"LANG": "C"},
        {"LC_ALL": "POSIX"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        {"PYTHONIOENCODING": "latin-1"},
    ],
    ids=["c", "posix", "ascii", "latin-1"],
)
def test_names_and_words_are_utf_8_in_every_locale(actor_tree, product, fault_server, locale):
    body = b"an image"
    folder = actor_tree.actor("0001_müller_日本", urls=[s3_url(BUCKET, "x/%C3%BC%E6%97%A5.png")])
    fault_server.put(BUCKET, "x/ü日.png", body)
    env = fault_server.account.environment | locale
    planned = product.run(["--dry-run"], actor_tree.root, env=env)
    finished = product.run(["--once"], actor_tree.root, env=env)

    assert "+ ü日.png  from s3://actor-images/x/ü日.png" in planned.stdout
    assert 0 == finished.returncode, finished.stderr
    assert finished.events("actor.synced", actor="0001_müller_日本", downloaded=1)
    assert body == (folder / "ü日.png").read_bytes()
    assert {b"response.json", "ü日.png".encode()} == set(os.listdir(os.fsencode(folder)))


def test_foreign_package_called_daemon_is_not_run(tree, product):
    command = (sys.executable, str(ROOT / "daemon" / "__main__.py"))
    finished = Product(product.home, command=command).run(["--once"], tree.root, env={"PYTHONPATH": None})

    assert 78 == finished.returncode
    assert 'a foreign package "daemon"' in finished.stderr
    assert f"run `python -m daemon` in {ROOT}" in finished.stderr


def test_our_package_wins_over_a_foreign_one_from_the_root(tree, product):
    importlib.metadata.version("python-daemon")  # it is installed here, or this test shows nothing
    args = ["--dry-run", "--data-dir", str(tree.data)]
    finished = product.run(args, ROOT, env={"PYTHONPATH": None})

    assert 0 == finished.returncode
    assert "2 to download, 1 present" in finished.stdout
