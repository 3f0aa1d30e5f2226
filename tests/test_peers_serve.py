"""infer.py serve as OpenAI's own client sees it."""

import threading
import time

import pytest
from conftest import tiny_model

import checkpoint
import serve
from agents import Model

openai = pytest.importorskip("openai")
pytestmark = pytest.mark.peers
ASK = [{"role": "user", "content": "Is it alive?"}]
KEY = "sk-secret-0123456789"


@pytest.fixture(scope="module")
def point(tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    model = tiny_model(vocab_size=tokenizer.size, max_position_embeddings=512)
    checkpoint.Checkpoint(model, tokenizer).save(folder)
    return checkpoint.open(folder)


@pytest.fixture(scope="module")
def url(point):
    engine = serve.Engine(point.model, 200, point.tokenizer.stop_ids)
    server = serve.Server(("127.0.0.1", 0), engine, point, "tiny", KEY)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    thread = threading.Thread(target=engine.run, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    engine.deadline = time.monotonic()
    thread.join()
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def client(url):
    with openai.OpenAI(base_url=url, api_key=KEY, max_retries=0) as client:
        yield client


def test_models(client):
    assert [model.id for model in client.models.list()] == ["tiny"]
    assert client.models.retrieve("tiny").owned_by == "parlor"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("other")


def test_a_chat_whole_and_streamed(client, point):
    settings = dict(model="tiny", messages=ASK, seed=3, max_tokens=12, n=2)
    whole = client.chat.completions.create(**settings)
    expected = [reply.text for reply in Model(point.model, point.tokenizer, 12, 1.0, 3).reply([ASK], 2)[0]]
    assert [choice.message.content for choice in whole.choices] == expected
    assert whole.choices[0].message.role == "assistant" and whole.usage.completion_tokens > 0
    texts = ["", ""]
    usage = None
    for chunk in client.chat.completions.create(
        **settings, stream=True, stream_options={"include_usage": True}
    ):
        usage = chunk.usage or usage
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
    assert texts == expected and usage == whole.usage


def test_the_helper_that_gathers_a_stream(client):
    settings = dict(model="tiny", messages=ASK, max_tokens=150, logprobs=True, top_logprobs=2)
    for seed in range(50):  # it refuses a reply that was cut
        settings["seed"] = seed
        if client.chat.completions.create(**settings).choices[0].finish_reason == "stop":
            break
    with client.chat.completions.stream(**settings) as stream:
        gathered = stream.get_final_completion()
    whole = client.chat.completions.create(**settings)
    assert gathered.choices[0].message.content == whole.choices[0].message.content
    assert gathered.choices[0].message.role == "assistant"
    shown, expected = (one.choices[0].logprobs.content for one in (gathered, whole))
    assert [token.token for token in shown] == [token.token for token in expected]
    assert [len(token.top_logprobs) for token in shown] == [2] * len(shown)


def test_a_completion(client):
    settings = dict(model="tiny", prompt=["Is it", "eagle"], seed=3, max_tokens=8, logprobs=2, echo=True)
    whole = client.completions.create(**settings)
    assert [choice.text[:5] for choice in whole.choices] == ["Is it", "eagle"]
    for choice in whole.choices:
        shown = choice.logprobs
        assert (
            len(shown.tokens)
            == len(shown.token_logprobs)
            == len(shown.top_logprobs)
            == len(shown.text_offset)
        )
    texts = ["", ""]
    for chunk in client.completions.create(**settings, stream=True):
        texts[chunk.choices[0].index] += chunk.choices[0].text
    assert texts == [choice.text for choice in whole.choices]


def test_errors_have_their_classes(client, url):
    ask = dict(model="tiny", messages=ASK, max_tokens=4)
    with pytest.raises(openai.BadRequestError) as error:
        client.chat.completions.create(**ask, tools=[{"type": "function", "function": {"name": "f"}}])
    assert error.value.param == "tools"
    with pytest.raises(openai.BadRequestError) as error:
        client.chat.completions.create(**{**ask, "max_tokens": 5000})
    assert error.value.code == "context_length_exceeded"
    with pytest.raises(openai.NotFoundError) as error:
        client.chat.completions.create(**{**ask, "model": "other"})
    assert error.value.code == "model_not_found"
    with openai.OpenAI(base_url=url, api_key="sk-wrong") as other:
        with pytest.raises(openai.AuthenticationError):
            other.models.list()


def test_sixteen_at_once(url, point):
    """With the asynchronous client, whose connections are kept."""
    import asyncio

    async def ask(client, seed):
        reply = await client.chat.completions.create(model="tiny", messages=ASK, seed=seed, max_tokens=12)
        return reply.choices[0].message.content

    async def all_of_them():
        async with openai.AsyncOpenAI(base_url=url, api_key=KEY) as client:
            return await asyncio.gather(*[ask(client, seed) for seed in range(16)])

    for seed, text in enumerate(asyncio.run(all_of_them())):
        assert text == Model(point.model, point.tokenizer, 12, 1.0, seed).reply([ASK])[0][0].text
