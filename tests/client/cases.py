"""Runs cases of tests/outside/sdk through `honest(OpenAI())`, as its client.py does without us.

The arguments: a file of cases, the upstream's base URL, the key, the strategy.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import openai

from honestproxy import honest
from tests.outside.sdk import client


def main(file: str, url: str, key: str, strategy: str) -> None:
    """All cases, printed as one JSON object."""
    with honest(openai.OpenAI(base_url=url, api_key=key, max_retries=0)) as wrapped:
        cases = json.loads(Path(file).read_text("utf-8"))
        results = {case["name"]: client.run(wrapped, strategy, case) for case in cases}
    json.dump({"version": openai.__version__, "results": results}, sys.stdout)


if __name__ == "__main__":
    main(*sys.argv[1:])
