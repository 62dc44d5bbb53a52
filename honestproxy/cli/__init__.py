"""The command line: serve, ask, compare; ab, report, mc, judge; introspect, models, and more."""

from __future__ import annotations

from typing import Annotated

import typer

from honestproxy import __version__
from honestproxy.cli import (
    ab,
    ask,
    compare,
    config,
    doctor,
    introspect,
    judge,
    keys,
    mc,
    models,
    prompts,
    report,
    serve,
    traces,
)

app = typer.Typer(
    name="honestproxy",
    help="A drop-in proxy that makes any chat model honest at inference time.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"honestproxy {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    pass


app.command()(serve.serve)
app.command()(ask.ask)
app.command()(compare.compare)
app.command()(ab.ab)
app.command()(report.report)
app.command()(mc.mc)
app.add_typer(judge.app, name="judge")
app.add_typer(introspect.app, name="introspect")
app.add_typer(keys.app, name="keys")
app.add_typer(models.app, name="models")
app.add_typer(prompts.app, name="prompts")
app.add_typer(traces.app, name="traces")
app.add_typer(config.app, name="config")
app.command()(doctor.doctor)


def main() -> None:
    """The console script."""
    app()
