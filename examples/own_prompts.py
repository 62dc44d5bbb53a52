"""Prompts of your own: a folder whose files come before the shipped ones of the same name.

On the command line: `honestproxy prompts export mine`, edit, `honestproxy serve --prompts mine`.
"""

import asyncio
import tempfile
from pathlib import Path

from honestproxy.backends.scripted import Scripted
from honestproxy.pipeline import Pipeline
from honestproxy.settings import Settings
from honestproxy.templates import Prompts
from honestproxy.types import ChatRequest


async def main(folder: Path) -> None:
    mine = folder / "curiosity" / "merge.md"
    mine.parent.mkdir()
    mine.write_text(f"{Prompts()['curiosity/merge'].text}\nAnswer in formal German.\n", "utf-8")

    model = Scripted(lambda request: "Gerne.")  # plays the model; any upstream would do
    settings = Settings(strategy="curiosity", prompts=folder)
    question = {"messages": [{"role": "user", "content": "What is the price of gold?"}]}
    await Pipeline(model, settings).complete(ChatRequest(question))
    print(model.requests[-1].messages[-1]["content"][-100:])


with tempfile.TemporaryDirectory() as name:
    asyncio.run(main(Path(name)))
