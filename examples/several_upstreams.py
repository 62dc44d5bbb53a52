"""Several upstreams by model: which one answers for a name, and what holds there.

`serve` takes the same from a file: see "Several upstreams" in the README.
"""

from honestproxy.backends.upstreams import Upstreams
from honestproxy.router import routed
from honestproxy.settings import ModelSettings, Settings, UpstreamSettings

settings = Settings(
    upstream="https://api.openai.com/v1",
    upstreams={"house": UpstreamSettings(url="http://127.0.0.1:8000/v1", models=("llama-*",))},
    models={"*-mini": ModelSettings(strategy="raw")},
)
pipelines = routed(Upstreams(settings), settings)

for model in ("gpt-5", "gpt-5-mini", "llama-3"):
    pipeline = pipelines.of(model)
    print(f"{model}: {pipeline.settings.upstream}, {pipeline.default_strategy}")
