"""The command line: parse, call, print. Heavy modules are imported by the command that needs them.

Exit codes: 0 done; 1 work is unfinished, such as failed trials, and the same command continues it; 2 the input is
wrong and nothing was started; 130 interrupted, and the same command continues.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Annotated

import typer

from crwn.paths import stand_in_for_home
from orchestrator import output
from orchestrator.cli import contexts, data, jobs, new, results, shown, sweeps
from orchestrator.errors import UnfinishedError, UserError

app = typer.Typer(
    name="crwn",
    help="Run sweeps of continual-learning experiments on this machine, a Ray cluster or Slurm.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

data_app = typer.Typer(
    name="data", help="List, download and verify data sets.", no_args_is_help=True, rich_markup_mode=None
)
app.add_typer(data_app)

new_app = typer.Typer(
    name="new", help="Write a plug-in template to start from.", no_args_is_help=True, rich_markup_mode=None
)
app.add_typer(new_app)


@new_app.callback()
def _write() -> None:
    """Write a plug-in template to start from."""


COMMANDS: Mapping[str, Callable[..., None]] = {
    "sweeps": sweeps.sweeps_,
    "plan": sweeps.plan,
    "run": sweeps.run,
    "doctor": sweeps.doctor,
    "submit": jobs.submit,
    "stop": jobs.stop,
    "status": jobs.status,
    "tables": results.tables,
    "report": results.report_,
    "contexts": contexts.contexts,
    "diff": results.diff,
    "verify": results.verify,
    "accept": results.accept,
    "sync": shown.sync,
    "ui": shown.ui,
    "register": shown.register,
    "serve": shown.serve,
}
"""In the order shown by `crwn --help`."""

NAMING_PAPERS = ("tables", "report")

DATA_COMMANDS: Mapping[str, Callable[..., None]] = {"list": data.list_, "fetch": data.fetch, "verify": data.verify}


def _show_version(is_asked: bool) -> None:
    if is_asked:
        from importlib import metadata  # noqa: PLC0415

        from crwn.code import RESULTS_VERSION  # noqa: PLC0415

        typer.echo(f"crwn {metadata.version('crwn')}, results version {RESULTS_VERSION}")
        raise typer.Exit


for name, command in COMMANDS.items():
    app.command(name, cls=results.NamesPaper if name in NAMING_PAPERS else None)(command)
for name, command in DATA_COMMANDS.items():
    data_app.command(name)(command)
new_app.command("method")(new.method)
new_app.command("network")(new.network)


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, help="Show the version and exit.", callback=_show_version)
    ] = False,
) -> None:
    """Run sweeps of continual-learning experiments on this machine, a Ray cluster or Slurm."""
    del version  # shown by its callback


def main() -> None:
    """Run the command line and exit with its code."""
    stand_in_for_home()
    standard_output = output.take_over()
    code = _called()
    if standard_output is not None:
        sys.stdout.flush()
        if standard_output.is_lost and code == 0:
            code = 1
    sys.exit(code)


def _called() -> int:
    """Run the command; its exit code."""
    try:
        app()
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except UnfinishedError as error:
        _print_error(error)
        return 1
    except (UserError, OSError) as error:
        _print_error(error)
        return 2
    return 0


def _print_error(error: Exception) -> None:
    from orchestrator.display import printable  # noqa: PLC0415

    typer.echo(f"error: {printable(str(error))}", err=True)
