"""`honestproxy prompts`: every word sent to a model, and your own in their place."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from honestproxy.cli.options import Json, ListByDefault, with_settings
from honestproxy.cli.output import count, print_json, stderr, stdout
from honestproxy.errors import PromptError
from honestproxy.settings import Settings, nearest
from honestproxy.templates import Prompt, Prompts, shipped

app = typer.Typer(cls=ListByDefault, help="Prompt files: list, show, check, export.")

Name = Annotated[str, typer.Argument(help="A prompt's name, e.g. gated/merge.")]
Folder = Annotated[Path, typer.Argument(help="Where to write the files.")]
Force = Annotated[bool, typer.Option("--force", help="Overwrite files that are there.")]


@app.command("list")
@with_settings("prompts")
def list_(settings: Settings, as_json: Json = False) -> None:
    """List the prompt files: name, digest, placeholders, and whether yours is used."""
    prompts = Prompts(settings.prompts)
    rows = [_row(prompts[name]) for name in prompts]
    if as_json:
        print_json({"prompts": rows})
        return
    table = Table("prompt", "digest", "placeholders", "yours", box=None, pad_edge=False)
    for row in rows:
        names = " ".join(f"${name}" for name in row["placeholders"])
        table.add_row(row["name"], row["digest"], names, "yes" if row["overridden"] else "")
    stdout().print(table)


@app.command()
@with_settings("prompts")
def show(settings: Settings, name: Name, as_json: Json = False) -> None:
    """Print one prompt file as it is used."""
    prompt = _named(Prompts(settings.prompts), name)
    if as_json:
        print_json(_row(prompt) | {"text": prompt.text})
    else:
        sys.stdout.write(prompt.text)


@app.command()
@with_settings("prompts")
def check(settings: Settings, as_json: Json = False) -> None:
    """Check that your files override something and keep its placeholders."""
    prompts = Prompts(settings.prompts)
    prompts.check()
    yours = [name for name in prompts if _overridden(prompts[name])]
    if as_json:
        print_json({"ok": True, "folder": _text(settings.prompts), "overridden": yours})
    else:
        where = f" in {settings.prompts}" if settings.prompts else ""
        stdout().print(f"{count(len(yours), 'file')} of yours{where}, and all prompts are in order")


@app.command()
@with_settings()
def export(settings: Settings, folder: Folder, force: Force = False, as_json: Json = False) -> None:
    """Write the shipped prompt files to a folder, to be edited and given with --prompts."""
    prompts = Prompts()
    targets = {folder / f"{name}.md": prompts[name].text for name in prompts}
    there = [path for path in targets if path.exists()]
    if there and not force:
        raise PromptError(f"{there[0]} is there already; --force overwrites it")
    try:
        for path, text in targets.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, "utf-8")
    except OSError as error:
        raise PromptError(f"{folder}: can't be written: {error.strerror}") from None
    if as_json:
        print_json({"folder": str(folder), "files": [str(path) for path in targets]})
        return
    stderr().print(
        f"Wrote {count(len(targets), 'file')}. Edit those you want, delete the others, and run:\n"
        f"honestproxy serve --prompts {folder}"
    )


def _named(prompts: Prompts, name: str) -> Prompt:
    wanted, known = name.removesuffix(".md"), list(prompts)
    if wanted not in known:
        raise PromptError(f"no prompt is called {name!r}; {nearest(wanted, known)}")
    return prompts[wanted]


def _row(prompt: Prompt) -> dict[str, Any]:
    return {
        "name": prompt.name,
        "digest": prompt.digest,
        "placeholders": sorted(prompt.placeholders),
        "overridden": _overridden(prompt),
        "path": str(prompt.path),
    }


def _overridden(prompt: Prompt) -> bool:
    return not prompt.path.is_relative_to(shipped())


def _text(path: Path | None) -> str | None:
    return str(path) if path else None
