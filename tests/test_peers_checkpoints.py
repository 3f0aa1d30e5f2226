"""Real checkpoints against transformers; PARLOR_CHECKPOINTS names the folder that holds them."""

import os
from pathlib import Path

import pytest
import torch

from data import load_tokenizer
from model import load
from sampler import generate

pytestmark = pytest.mark.peers
transformers = pytest.importorskip("transformers")
CHECKPOINTS = {"smollm2-135m-instruct": "smollm2", "gemma3-270m": "gemma"}
PROMPTS = """\
What is the capital of France?
Name three animals that can fly and one that cannot.
Write a haiku about the sea.
2 + 2 =
Explain in one paragraph how a refrigerator works.
Translate to German: The cat sleeps on the warm windowsill.
def fibonacci(n):
Who wrote "Pride and Prejudice", and when?
List the planets of the solar system from the sun outwards.
Why is the sky blue?
Is a tomato a fruit or a vegetable? Answer in one word.
Once upon a time
¿Cuál es la capital de España?
Give me a recipe for pancakes with exact amounts, please, for four people who like them thick and sweet.
A train leaves at noon and travels 60 km an hour. How far is it at half past three?
Summarise: the quick brown fox jumps over the lazy dog, again and again, all day long, until the dog barks.
日本の首都はどこですか。
I
What is the difference between a list and a tuple in Python?
Tell me a joke about a horse.""".split("\n")


@pytest.fixture(params=CHECKPOINTS)
def folder(request):
    path = Path(os.environ.get("PARLOR_CHECKPOINTS", "nowhere"), request.param)
    if not path.is_dir():
        pytest.skip("PARLOR_CHECKPOINTS names no folder with this checkpoint")
    return path


@torch.no_grad()
def test_greedy_text_is_that_of_transformers(folder):
    """20 prompts in one ragged batch, 200 tokens each, against transformers one by one; where two texts part,
    the two best logits lie within 1e-4 of each other."""
    tokenizer = load_tokenizer(folder, CHECKPOINTS[folder.name])
    prompts = [tokenizer.prompt([{"role": "user", "content": text}]) for text in PROMPTS]
    model = load(folder, dtype=torch.float32)
    replies = [reply.ids for reply in generate(model, prompts, 200, [], temperature=0)]
    peer = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    peer.generation_config.eos_token_id = None
    close = 0
    for prompt, reply in zip(prompts, replies):
        expected = peer.generate(torch.tensor([prompt]), max_new_tokens=200, do_sample=False, pad_token_id=0)
        expected = expected[0, len(prompt) :].tolist()
        if reply != expected:
            t = next(t for t in range(200) if reply[t] != expected[t])
            best = model.logits(model(torch.tensor([prompt + reply[:t]])))[0, -1].topk(2).values
            assert best[0] - best[1] < 1e-4, (prompt, t)
            close += 1
    print(f"{folder.name}: {len(prompts) - close} of {len(prompts)} texts equal, {close} part at a tie")
    assert close <= 2


def test_chat_ids_are_those_of_the_checkpoints_own_template(folder):
    peer = transformers.AutoTokenizer.from_pretrained(folder)
    if not peer.chat_template:
        pytest.skip("it has no chat template")
    tokenizer = load_tokenizer(folder)
    talk = [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(PROMPTS)]
    for messages in (talk[:1], talk[:7], [{"role": "system", "content": "Be brief."}, *talk[:19]]):
        expected = peer.apply_chat_template(
            messages, add_generation_prompt=True, tokenize=True, return_dict=False
        )
        assert tokenizer.prompt(messages) == expected
