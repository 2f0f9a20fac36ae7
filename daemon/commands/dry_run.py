"""`--dry-run`: print the plan of each actor without downloading anything."""

from collections import Counter
from collections.abc import Mapping

from daemon.actor_sync import plan_actor
from daemon.config import Config
from daemon.core.errors import ActorsyncError
from daemon.core.json_output import dump_json
from daemon.core.model import Plan
from daemon.core.plural import counted
from daemon.exit_status import ExitStatus
from daemon.notices import describe, print_notice
from daemon.printing import print_text
from daemon.roster import list_actors
from daemon.wiring import open_data_dir


def dry_run(config: Config) -> int:
    """Print text, or with --log-format json a JSON line for each actor and one for the totals."""
    printer: _TextPrinter | _JsonPrinter = _JsonPrinter() if config.log_format == "json" else _TextPrinter()
    manifests, disk = open_data_dir(config)
    actors = list_actors(manifests, config.actors, config.exclude)
    totals = Counter(actors=len(actors.names), to_download=0, present=0, problems=len(actors.invalid))
    for invalid in actors.invalid:
        printer.entry_problem(invalid)
    for glob in actors.unmatched:
        print_notice("warning", "exclude.unmatched", f"actorsync: --exclude {glob!r} matches no actor", glob=glob)
    for actor in actors.names:
        try:
            plan = plan_actor(actor, manifests, disk, config.endpoint_url)
        except ActorsyncError as error:
            totals["problems"] += 1
            printer.actor_problem(actor, error)
            continue
        totals.update(to_download=len(plan.downloads), present=len(plan.present), problems=len(plan.failures))
        printer.plan(plan)
    printer.totals(totals)
    return ExitStatus.OK


class _TextPrinter:
    """Plans for people."""

    def entry_problem(self, error: ActorsyncError) -> None:
        print_text(f"! {describe(error)}")

    def actor_problem(self, actor: str, error: ActorsyncError) -> None:
        print_text(f"{actor}: {describe(error)}")

    def plan(self, plan: Plan) -> None:
        lines = [f"{plan.actor}: {len(plan.downloads)} to download, {len(plan.present)} present"]
        lines += [f"    + {d.name}  from {d.ref}  ({d.reason.value})" for d in plan.downloads]
        lines += [f"    ! {f.image}  {f.code}: {f.error}{f'  -> {f.hint}' if f.hint else ''}" for f in plan.failures]
        print_text("\n".join(lines))

    def totals(self, totals: Mapping[str, int]) -> None:
        text = f"{totals['to_download']} to download, {totals['present']} present, {counted(totals['problems'], 'problem')}"
        print_text(f"\n{counted(totals['actors'], 'actor')}: {text}")


class _JsonPrinter:
    """Plans as JSON lines, for scripts."""

    def entry_problem(self, error: ActorsyncError) -> None:
        _print_json({"problem": _problem(error)})

    def actor_problem(self, actor: str, error: ActorsyncError) -> None:
        _print_json({"actor": actor, "problem": _problem(error)})

    def plan(self, plan: Plan) -> None:
        _print_json(
            {
                "actor": plan.actor,
                "downloads": [{"image": d.name, "source": str(d.ref), "reason": d.reason.value} for d in plan.downloads],
                "present": len(plan.present),
                "problems": [{"image": f.image, "code": f.code, "error": f.error, "hint": f.hint} for f in plan.failures],
            }
        )

    def totals(self, totals: Mapping[str, int]) -> None:
        _print_json({"total": totals})


def _problem(error: ActorsyncError) -> Mapping[str, str]:
    return {"code": error.code, "error": str(error), "hint": error.hint}


def _print_json(document: Mapping[str, object]) -> None:
    print_text(dump_json(document).decode())
