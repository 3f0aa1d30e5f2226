"""Decoders that rank texts for a query: a YesNo is asked about each pair of a query and a document.

The samples that begin alike are read as one tree (data.share_prefixes), so a query is computed once for all
its documents, and no document sees another."""

from itertools import groupby

import numpy as np
import torch
from tqdm import tqdm

from agents import Classifier
from data import Row, Tokenizer, collate, micro_batches, share_prefixes
from games.stats import log_softmax
from sampler import finite
from steps import hidden_states
from terminal import UsageError

BATCH_TOKENS = 4096  # slots that are computed at a time, padding included
# The prompt of Qwen3-Reranker, from its model card. The empty thought is left out where a tokenizer has none.
SYSTEM = (
    "Judge whether the Document meets the requirements based on the Query and the Instruct provided. "
    'Note that the answer can only be "yes" or "no".'
)
USER = "<Instruct>: {instruct}\n<Query>: {query}\n<Document>: {document}"
NO_THOUGHT = "<think>\n\n</think>\n\n"


# ------------------------------------------------------------------------------------------------ trees
def tree(samples: list, token: int, labels: list) -> Row:
    """One Row of samples (lists of ids), each followed by the same token, the only one that is learned."""
    return share_prefixes([([*ids, token], [0] * len(ids) + [1]) for ids in samples], labels)


def last_logits(model, batch) -> torch.Tensor:
    """Logits (S, V), or class scores (S, classes), behind the last token of each sample of a batch of trees,
    in the order of the samples."""
    head = model.classifier if model.config.labels else model.logits
    return head(hidden_states(model, batch)).float()[batch.owner.argsort()]


@torch.no_grad()
def read_trees(model, rows: list, tokens: list) -> np.ndarray:
    """Logits (S, tokens) of some tokens behind each sample of trees; the label of a sample is its place."""
    scores = torch.empty(sum(len(row.labels) for row in rows), len(tokens))
    batches = micro_batches(rows, BATCH_TOKENS)
    for group in tqdm(batches, unit="batch", disable=None if len(batches) > 20 else True):
        batch = collate(group, model.device)
        scores[batch.labels.cpu()] = finite(model, last_logits(model, batch)[:, tokens]).cpu()
    return scores.numpy()


# ------------------------------------------------------------------------------------------------ agents
class YesNo:
    """A decoder that is asked whether a document is right, as Qwen3-Reranker is; or such a model made into a
    classifier of one class, whose score is the log-odds of yes. instruct: what it is told to find."""

    def __init__(self, model, tokenizer: Tokenizer, max_tokens: int = 512, instruct: str = ""):
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.max_tokens = max_tokens
        self.instruct = instruct
        self.thought = []
        if tokenizer.inner.token_to_id("<think>") is not None:
            self.thought += tokenizer.encode(NO_THOUGHT)
        self.tokens = [0] if model.config.labels else [*map(self.token_of, ("no", "yes"))]

    def token_of(self, word):
        ids = self.tokenizer.encode(word)
        if len(ids) > 1:
            raise UsageError(f"--reranker: this model has no single token {word!r} to answer with")
        return ids[0]

    def classify(self, conversations: list) -> np.ndarray:
        """The probabilities of no and yes, (N, 2), for pairs of messages: a query and a document."""
        rows = []
        place = 0
        for _, group in groupby(conversations, key=lambda pair: pair[0]["content"]):
            samples = [self.prompt(*pair) for pair in group]
            rows.append(tree(samples, 0, [*range(place, place + len(samples))]))
            place += len(samples)
        logits = read_trees(self.model, rows, self.tokens).astype(float)  # (N, 2), or (N, 1)
        return np.exp(log_softmax(np.pad(logits, ((0, 0), (2 - logits.shape[1], 0)))))

    def prompt(self, query, document):
        texts = {"query": query["content"], "document": document["content"], "instruct": self.instruct}
        messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": USER.format(**texts)}]
        ids, _ = self.tokenizer.fit_prompt(messages, self.max_tokens - len(self.thought))
        return ids + self.thought


def reranker_of(point, max_tokens: int, instruct: str):
    """The agent that a checkpoint.Checkpoint is as a reranker."""
    config = point.model.config
    if config.labels and not (config.causal and config.labels == 1):
        return Classifier(point.model, point.tokenizer, max_tokens)
    if config.head == "none":
        raise ValueError(f"{point.folder}: makes vectors; a reranker has a classifier or answers in words")
    return YesNo(point.model, point.tokenizer, max_tokens, instruct)
