"""Rows of packed texts for tests, and what a model that reads them gives."""

import torch

from data import collate, pack, share_prefixes

SLIDING = ["mistral", "gemma2", "gemma3_text", "olmo3", "modernbert"]
LONG = 160  # slots from which the smallest band pays: twice its 64 queries and their neighbourhood


def text(n, seed):
    return torch.randint(1, 300, (n,), generator=torch.Generator().manual_seed(seed)).tolist()


def tree(stem, *branches, seed=0):
    """Texts that share their first tokens, of these lengths, and some of them more than those."""
    stem, first = text(stem, seed), text(8, seed + 1)
    return [stem + first * (i % 2) + text(n, seed + 2 + i) for i, n in enumerate(branches)]


def rows_of(*groups):
    """A Row of each group of texts; every token but a text's first is learned, a text's label its number."""
    rows, number = [], 0
    for group in groups:
        samples = [(ids, [0] + [1] * (len(ids) - 1)) for ids in group]
        rows.append(share_prefixes(samples, [number + i for i in range(len(group))]))
        number += len(group)
    return rows


def place(batch):
    return batch.positions, batch.end


def long_documents():
    """ids, positions and end of two rows that hold documents; one is shorter."""
    rows = pack(rows_of(*[[text(n, n)] for n in (100, 40, 30, 90, 20)]), 175)
    batch = collate(rows)
    assert batch.ids.shape[1] >= LONG and len(batch.ids) > 1
    return batch.ids, batch.positions, batch.end


def model_body(model):
    """Without the head, which has no part in hidden states."""
    body = torch.nn.Module()
    for name, part in model.named_children():
        if name not in ("head", "classifier"):
            body.add_module(name, part)
    return body


def batch_for(model):
    """A row of packed trees, a row of packed documents and a short one, over several blocks of 128 slots."""
    documents = rows_of(*[[text(n, n)] for n in (140, 40, 30)])
    trees = rows_of(tree(50, 60, 30, 40), tree(20, 30, 10, seed=9)) if model.config.causal else documents
    batch = collate([*pack(documents, 280), *pack(trees, 280), documents[2]])
    assert batch.ids.shape[1] > 128 and batch.ids.shape[0] == 3
    return batch.ids, batch.positions, batch.end
