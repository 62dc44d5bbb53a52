"""What the commands share: settings from flags, and errors in one line."""

from __future__ import annotations

import inspect
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import typer
from typer.core import TyperGroup

from honestproxy.cli.output import print_error
from honestproxy.errors import (
    HonestProxyError,
    InvalidRequest,
    PromptError,
    SettingsError,
    UpstreamError,
)
from honestproxy.settings import Gathered, Settings, gather, load

COMMON = ("upstream", "model", "strategy")
MISTAKE, FAILURE = 2, 1
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}

Json = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
_Config = Annotated[
    Path | None, typer.Option("--config", help="TOML file; honestproxy.toml here where unset.")
]

Command = Callable[..., None]


class ListByDefault(TyperGroup):
    """A group of commands where none means `list`: `honestproxy models --json` works."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put `list` in front where no command is named."""
        is_help = args[:1] and args[0] in ctx.help_option_names
        if not args or (args[0].startswith("-") and not is_help):
            args = ["list", *args]
        return super().parse_args(ctx, args)


def with_settings(
    *more: str, common: tuple[str, ...] = COMMON, read: Callable[..., Any] = load
) -> Callable[[Command], Command]:
    """Give a command `settings`, with flags for the common ones and those named in `more`.

    The command's first parameter is replaced by `--config` and a flag for each setting. A flag
    that would do nothing in a command isn't among its `common` ones. `read` makes of the config
    file's path and of the flags what the command gets.
    """
    names = common + more

    def wrap(command: Command) -> Command:
        def run(**values: Any) -> None:
            with errors_in_one_line(as_json=values.get("as_json", False)):
                flags = {name: values.pop(name) for name in names}
                config = values.pop("config")
                with _placed(partial(gather, config, **flags)):
                    command(read(config, **flags), **values)

        own = list(inspect.signature(command, eval_str=True).parameters.values())[1:]
        return _dressed(run, command, [*own, *map(_flag, names), _keyword("config", _Config)])

    return wrap


def seconds(flag: str, given: str) -> float:
    """A time as people write it, such as 30m or 7d. Raises InvalidRequest."""
    read = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?)([smhdw])", given.strip())
    if read is None:
        raise InvalidRequest(f"{flag} {given!r}: give a number and s, m, h, d or w, as in 7d")
    return float(read[1]) * _UNITS[read[2]]


@contextmanager
def errors_in_one_line(*, as_json: bool) -> Iterator[None]:
    """Print what went wrong, without a traceback, and exit with a code that tells its kind."""
    try:
        yield
    except HonestProxyError as error:
        print_error(error, as_json=as_json)
        raise typer.Exit(exit_code(error)) from None
    except BrokenPipeError:  # whoever reads has enough, as `head` soon has
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(FAILURE) from None
    except OSError as error:  # a full disk, a folder that may not be written, …
        said = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
        print_error(SettingsError(said or str(error)), as_json=as_json)
        raise typer.Exit(MISTAKE) from None
    except KeyboardInterrupt:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(130)  # 128 + SIGINT; at once: a thread may be deep in a conversion


@contextmanager
def _placed(gathered: Callable[[], Gathered]) -> Iterator[None]:
    try:
        yield
    except (SettingsError, PromptError) as error:
        raise type(error)(told(error, gathered)) from None


def told(error: HonestProxyError, gathered: Callable[[], Gathered]) -> str:
    """What is wrong, with file, line and key of the setting that the error names, if any.

    That is for what only use shows to be wrong, such as a port that is taken.
    """
    is_placed = isinstance(error, SettingsError | PromptError)
    if not is_placed or error.param not in Settings.model_fields:
        return error.message
    what = error.message.removeprefix(f"{error.param}: ")
    return gathered().mistake((error.param,), what)


def exit_code(error: HonestProxyError) -> int:
    """1 where the upstream failed, or can't be reached; 2 where what is here is wrong."""
    return FAILURE if isinstance(error, UpstreamError) else MISTAKE


def _dressed(run: Command, command: Command, parameters: list[inspect.Parameter]) -> Command:
    """`run` with the name, help and signature that Typer is to see."""
    run.__name__, run.__doc__ = command.__name__, command.__doc__
    ordered = sorted(parameters, key=lambda parameter: parameter.kind)
    run.__signature__ = inspect.Signature(ordered)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in ordered}
    return run


def _flag(name: str) -> inspect.Parameter:
    """A text option, or a switch for what is off by default; Settings reads and checks it."""
    field = Settings.model_fields[name]
    is_switch = field.default is False
    option = typer.Option(
        "--" + name.replace("_", "-"),
        help=f"{field.description}{_shown(field.default)}",
        metavar=None if is_switch else _metavar(name, field.annotation),
        show_default=False,
    )
    return _keyword(name, Annotated[bool | None if is_switch else str | None, option])


def _metavar(name: str, annotation: Any) -> str:
    words = get_args(annotation) if get_origin(annotation) is Literal else ()
    return "|".join(words) or name.upper()


def _shown(default: Any) -> str:
    return f" Default: {default}." if isinstance(default, str | int | float) else ""


def _keyword(name: str, annotation: Any) -> inspect.Parameter:
    keyword = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(name, keyword, default=None, annotation=annotation)
