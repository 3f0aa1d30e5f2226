"""llama.cpp for bench/generate.py: writes a Llama-family model as a GGUF file, and continues token ids with
it as llama.cpp's server does: a sequence for each prompt, continuous batching, prefixes kept and copied."""

import json
import os
from pathlib import Path

import gguf
import llama_cpp as C
import numpy as np

WORTH = 8  # a prompt waits while another one reads at least this many tokens of a common prefix
BLOCK = 256  # sampling first draws a block of the vocabulary, then a token in it


def to_gguf(folder, path, kind):
    """Write the Hugging Face folder of a Llama-family model as a GGUF file in f32, bf16, f16 or q8_0."""
    from safetensors import safe_open

    folder = Path(folder)
    config, tokenizer = (json.loads((folder / f"{n}.json").read_text()) for n in ("config", "tokenizer"))
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if rope.get("rope_type", rope.get("type", "default")) != "default":
        raise ValueError(f"{folder}: only plain rope can be written, not {rope}")
    heads, layers, size = config["num_attention_heads"], config["num_hidden_layers"], config["vocab_size"]
    kv_heads = config.get("num_key_value_heads", heads)
    head = config.get("head_dim") or config["hidden_size"] // heads
    words, types = [f"<unused {i}>" for i in range(size)], [gguf.TokenType.UNUSED] * size
    for word, i in tokenizer["model"]["vocab"].items():
        words[i], types[i] = word, gguf.TokenType.NORMAL
    for token in tokenizer["added_tokens"]:
        words[token["id"]], types[token["id"]] = token["content"], gguf.TokenType.CONTROL
    merges = [m if isinstance(m, str) else " ".join(m) for m in tokenizer["model"]["merges"]]

    out = gguf.GGUFWriter(path, "llama")
    metadata = dict(
        file_type=gguf.LlamaFileType[("ALL_" if kind == "f32" else "MOSTLY_") + kind.upper()],
        quantization_version=gguf.GGML_QUANT_VERSION, vocab_size=size, block_count=layers,
        context_length=config["max_position_embeddings"], embedding_length=config["hidden_size"],
        feed_forward_length=config["intermediate_size"], layer_norm_rms_eps=config["rms_norm_eps"],
        head_count=heads, head_count_kv=kv_heads, key_length=head, value_length=head,
        rope_dimension_count=head, rope_freq_base=rope.get("rope_theta", config.get("rope_theta", 1e4)),
        tokenizer_model="gpt2", tokenizer_pre="smollm",
        token_list=words, token_types=types, token_merges=merges,
    )  # fmt: skip
    for key, value in metadata.items():
        getattr(out, f"add_{key}")(value)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, layers)
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, "pt") as tensors:
            for name in tensors.keys():
                if name == "lm_head.weight" and config.get("tie_word_embeddings"):
                    continue
                data = tensors.get_tensor(name).float().numpy()
                for part, n in (("q_proj", heads), ("k_proj", kv_heads)):
                    if part in name:  # llama.cpp's rope turns neighbouring rows, transformers' the two halves
                        data = data.reshape(n, 2, -1, *data.shape[1:]).swapaxes(1, 2).reshape(data.shape)
                store = gguf.GGMLQuantizationType["F32" if data.ndim == 1 else kind.upper()]
                new = names.get_name(name, try_suffixes=(".weight", ".bias"))
                out.add_tensor(new, gguf.quants.quantize(data, store), raw_dtype=store)
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()


@C.llama_log_callback
def silent(level, text, data):
    """Drop a line of llama.cpp's log."""


def common(a, b):
    """Count the leading tokens on which two texts agree."""
    n = min(len(a), len(b))
    differ = a[:n] != b[:n]
    return int(differ.argmax()) if differ.any() else n


def choose(logits, n, temperature, random):
    """Draw n tokens from one row of logits (numpy is faster here than llama.cpp's own sampler chain)."""
    if temperature == 0:
        return [int(logits.argmax())] * n
    p = np.exp((logits - logits.max()) / np.float32(temperature))
    sums = np.add.reduceat(p, np.arange(0, len(p), BLOCK)).cumsum(dtype=np.float64)
    tokens = []
    for u in random.random(n) * sums[-1]:
        block = int(sums.searchsorted(u, "right"))
        inner = p[block * BLOCK :][:BLOCK].cumsum(dtype=np.float64)
        left = inner[-1] - (sums[block] - u)
        tokens.append(block * BLOCK + min(int(inner.searchsorted(left, "right")), len(inner) - 1))
    return tokens


class Slot:
    """One sequence: a text of `total` tokens; llama.cpp's memory holds the first `done` of them."""

    def __init__(self, id, context):
        self.id, self.text = id, np.zeros(context, np.int32)
        self.done = self.total = self.used = 0


class Llama:
    """A GGUF model with `slots` sequences of up to `context` tokens each, which persist between calls."""

    def __init__(self, path, threads, slots, context):
        C.llama_log_set(silent, None)
        self.model = C.llama_model_load_from_file(os.fsencode(path), C.llama_model_default_params())
        if not self.model:
            raise ValueError(f"llama.cpp cannot load {path}")
        p = C.llama_context_default_params()
        p.n_ctx, p.n_seq_max, p.n_outputs_max, p.kv_unified = slots * context, slots, slots, True
        p.n_threads = p.n_threads_batch = threads
        self.ctx = C.llama_init_from_model(self.model, p)
        self.memory, self.room = C.llama_get_memory(self.ctx), C.llama_n_batch(self.ctx)
        self.vocab = C.llama_vocab_n_tokens(C.llama_model_get_vocab(self.model))
        self.context, self.slots = context, [Slot(i, context) for i in range(slots)]
        self.clock = self.read = 0
        self.batch = b = C.llama_batch_init(self.room, 0, 1)
        fields = (b.token, b.pos, b.logits, b.n_seq_id)
        self.token, self.pos, self.wanted, ones = (np.ctypeslib.as_array(f, (self.room,)) for f in fields)
        ones[:] = 1

    def close(self):
        """Free the batch, the context and the model."""
        C.llama_batch_free(self.batch)
        C.llama_free(self.ctx)
        C.llama_model_free(self.model)

    def call(self, prompts, news, temperature, seed=0):
        """Continue each prompt by exactly its number of new tokens; temperature 0 is greedy."""
        random, results, busy = np.random.default_rng(seed), [[] for _ in prompts], []
        waiting = [(i, np.array(p, np.int32), n) for i, (p, n) in enumerate(zip(prompts, news)) if n]
        if any(not len(p) or len(p) + n > self.context for _, p, n in waiting):
            raise ValueError(f"a prompt is empty or does not fit in {self.context} tokens")
        while waiting or busy:
            self._enter(waiting, busy)
            for logits, slots in self._step(busy):
                for slot, token in zip(slots, choose(logits, len(slots), temperature, random)):
                    slot.text[slot.total] = token
                    slot.total += 1
                    if slot.total == slot.goal:
                        results[slot.request] = slot.text[slot.start : slot.goal].tolist()
                        busy.remove(slot)
        return results

    def _enter(self, waiting, busy):
        """Give free slots to prompts: the slot that already holds most of a prompt, or else the one unused
        longest."""
        free = [s for s in self.slots if s not in busy]
        while waiting and free:
            pairs = [(common(w[1], s.text[: s.done]), w, s) for w in waiting[: len(self.slots)] for s in free]
            n, new, slot = max(pairs, key=lambda pair: pair[0])
            if n * 2 <= slot.done:
                n, new, slot = min(pairs[: len(free)], key=lambda pair: pair[2].used)
            waiting[:] = [w for w in waiting if w is not new]
            free.remove(slot)
            busy.append(slot)
            slot.request, prompt, count = new
            slot.start = slot.total = len(prompt)
            slot.goal, slot.done, slot.text[: slot.start] = slot.start + count, min(n, slot.start - 1), prompt
            self.clock = slot.used = self.clock + 1
            C.llama_memory_seq_rm(self.memory, slot.id, slot.done, -1)

    def _copy(self, source, slot, n):
        """Copy the first n tokens of another slot's memory that this slot does not hold yet."""
        if n > slot.done:
            C.llama_memory_seq_cp(self.memory, source.id, slot.id, slot.done, n)
            slot.done = n

    def _step(self, busy):
        """Run one batch, slots that decode first; return each row of logits with the slots that continue from
        it."""
        filled, fed, rows = 0, [], []
        for slot in sorted(busy, key=lambda s: s.total - s.done > 1):
            reads = slot.total - slot.done > 1
            for other in self.slots if reads else ():
                self._copy(other, slot, common(slot.text[: slot.total - 1], other.text[: other.done]))
            for first, _, _, same in fed if reads else ():
                n = common(slot.text[: slot.total], first.text[: first.total])
                if n == slot.total == first.total:
                    same.append(slot)
                    break
                if n - slot.done >= WORTH:
                    break
            else:
                take = min(slot.total - slot.done, self.room - filled)
                if not take:
                    break
                part, filled = slice(filled, filled + take), filled + take
                self.token[part] = slot.text[slot.done : slot.done + take]
                self.pos[part] = np.arange(slot.done, slot.done + take)
                self.wanted[part] = 0
                self.wanted[filled - 1] = slot.done + take == slot.total
                for i in range(part.start, filled):
                    self.batch.seq_id[i][0] = slot.id
                fed.append((slot, take, filled - 1, []))
        self.batch.n_tokens = filled
        if code := C.llama_decode(self.ctx, self.batch):
            raise RuntimeError(f"llama_decode failed with {code}")
        self.read += filled
        for slot, take, last, same in fed:
            slot.done += take
            for twin in same:
                self._copy(slot, twin, slot.done)
            if slot.done == slot.total:
                logits = np.ctypeslib.as_array(C.llama_get_logits_ith(self.ctx, last), (self.vocab,))
                rows.append((logits, [slot, *same]))
        return rows
