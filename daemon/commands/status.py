"""`status`: print the status of the daemon that owns the data directory."""

from daemon.commands.question import ask
from daemon.config import Config
from daemon.core.json_output import dump_json
from daemon.printing import print_text
from daemon.status import status_table


def status(config: Config) -> int:
    """Print a table, or JSON with --log-format json. Raises DaemonUnreachable."""
    answer = ask(config, "status")
    if "status" in answer:
        document = answer["status"]
        print_text(dump_json(document).decode() if config.log_format == "json" else status_table(document))
    return int(answer["exit"])
