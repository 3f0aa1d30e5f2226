"""lm-eval through infer.py serve and on transformers: python bench/harness.py --model DIR

Twelve sentences to be completed, as a multiple choice (log-probabilities of the prompt, by `echo`) and as
text (by `stop`). Starts a server, and evaluates both tasks in float32 through /v1/completions and by
lm-eval's own transformers backend, the second one also through /v1/chat/completions. Prints the largest
difference of a log-probability, how many texts are equal, and the scores.
Needs lm-eval[api], transformers and accelerate."""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
FACTS = """\
The capital of France is: *Paris, Berlin, Madrid
Water freezes at zero degrees: *Celsius, apples, kilograms
A dog is a kind of: stone, *animal, number
The sun rises in the: west, north, *east
Two plus two equals: *four, seven, nine
The opposite of hot is: warm, *cold, loud
Cows give us: *milk, steel, paper
A week has seven: months, *days, hours
Fish live in: fire, *water, clouds
The color of grass is: *green, purple, black
Birds can: *fly, code, melt
Snow is: hot, *cold, loud"""
TASK = """\
dataset_path: json
dataset_kwargs: {{data_files: {{test: {folder}/facts.jsonl}}}}
test_split: test
"""
CHOOSE = """\
task: facts_choose
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_target: answer
doc_to_choice: choices
metric_list: [{metric: acc}]
"""
WRITE = """\
task: facts_write
output_type: generate_until
doc_to_text: "Complete the sentence with one word: {{question}}"
doc_to_target: gold
generation_kwargs: {until: ["\\n", "."], max_gen_toks: 12, do_sample: false}
filter_list:
- name: last
  filter: [{function: regex, regex_pattern: "(\\\\w+)\\\\W*$"}, {function: take_first}]
metric_list: [{metric: exact_match, ignore_case: true}]
"""


def write_tasks(folder):
    rows = []
    for line in FACTS.split("\n"):
        question, _, words = line.partition(": ")
        words = words.split(", ")
        answer = next(i for i, word in enumerate(words) if word[0] == "*")
        words[answer] = words[answer][1:]
        rows.append({"question": question, "choices": words, "answer": answer, "gold": words[answer]})
    (folder / "facts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name, text in (("choose", CHOOSE), ("write", WRITE)):
        (folder / f"{name}.yaml").write_text(text + TASK.format(folder=folder))


def evaluate(folder, out, tasks, *flags):
    """Run lm-eval. Returns {task: the rows of its samples in order}."""
    argv = [sys.executable, "-m", "lm_eval", "run", "--include_path", folder, "--output_path", folder / out]
    offline = {"HF_DATASETS_OFFLINE": "1", "HF_HUB_OFFLINE": "1", "OPENAI_API_KEY": "none"}
    argv = [*map(str, argv), "--log_samples", "--tasks", ",".join(tasks), *flags]
    subprocess.run(argv, check=True, env=os.environ | offline, stdout=subprocess.DEVNULL)
    samples = {}
    for task in tasks:
        (path,) = (folder / out).rglob(f"samples_{task}_*.jsonl")
        rows = map(json.loads, path.read_text().splitlines())
        samples[task] = sorted(rows, key=lambda row: row["doc_id"])
    return samples


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", required=True, help="a local folder of a chat model")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_tasks(folder)
        argv = [sys.executable, ROOT / "infer.py", "serve", "--model", args.model, "--port", "0"]
        argv += ["--context", "1024", "--device", "cpu"]
        server = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
        url = re.search(r"http://\S+/v1", server.stdout.readline())[0]
        about = f"model={Path(args.model).name},tokenizer={args.model},tokenizer_backend=huggingface"
        about += ",num_concurrent=8,max_length=1024"
        tasks = ["facts_choose", "facts_write"]
        completions = f"{about},base_url={url}/completions"
        ours = evaluate(folder, "ours", tasks, "--model", "local-completions", "--model_args", completions)
        chat = [
            "--model",
            "local-chat-completions",
            "--model_args",
            f"{about},base_url={url}/chat/completions",
        ]
        chats = evaluate(folder, "chat", ["facts_write"], *chat, "--apply_chat_template")
        server.terminate()
        print(f"the server ended with {server.wait()}")
        theirs = [
            "--model",
            "hf",
            "--model_args",
            f"pretrained={args.model},dtype=float32",
            "--device",
            "cpu",
        ]
        theirs = evaluate(folder, "theirs", tasks, *theirs)

    largest = 0.0
    greedy = 0
    count = 0
    for row, other in zip(ours["facts_choose"], theirs["facts_choose"]):
        for (logp, best), (their_logp, their_best) in zip(row["filtered_resps"], other["filtered_resps"]):
            largest = max(largest, abs(float(logp) - float(their_logp)))
            greedy += str(best) == str(their_best)
            count += 1
    equal = sum(
        row["resps"] == other["resps"] for row, other in zip(ours["facts_write"], theirs["facts_write"])
    )
    n = len(FACTS.split("\n"))
    print(f"{count} log-probabilities differ by at most {largest:.1e}; greedy alike {greedy} of {count}")
    print(f"texts: {equal} of {n} equal")
    for side, rows in (("completions", ours["facts_write"]), ("chats", chats["facts_write"])):
        print(f"exact match, {side}: {sum(row['exact_match'] for row in rows):.0f} of {n}")
    print(f"right choices: {sum(row['acc'] for row in ours['facts_choose']):.0f} of {n}")


if __name__ == "__main__":
    main()
