"""A bank of labels too large to be encoded in every step (--bank-every).

Its vectors are made anew every so many steps, without gradients, and serve as candidates for all queries, as
in the cross-batch memory of arXiv 1912.06798. A step itself encodes the labels of its positives and, with
--hard, the labels nearest to these."""

import torch
import torch.nn.functional as F

from data import text_row
from terminal import UsageError

NO_LABEL = -(1 << 62)  # of a candidate that is no query's positive


def split(learner, step, items, texts):
    """Note which labels of the bank a ContrastStep encodes and which not. texts: those of the step."""
    if not learner.bank:
        raise UsageError("--bank-every: needs --bank")
    step.live = sorted({item.label_id for item in items})
    labels = {text: label for label, text in enumerate(learner.bank)}  # one candidate for each text
    step.stale = [label for text, label in labels.items() if ("document", text) not in texts.indices]


def prepare(learner, step):
    """Make the vectors of the bank if they are due, and the hard labels of a ContrastStep its candidates."""
    cfg = learner.cfg
    embedder = learner.embedder
    if learner.bank_vectors is None or step.number % cfg.bank_every == 0:
        vectors = embedder.embed(learner.bank, embedder.prompt_of("document"))  # (labels, E)
        learner.bank_vectors = vectors.to(learner.model.device)
        learner.model.train()
    if cfg.hard and step.stale:
        add_hard(learner, step)
    step.live = []  # done


def add_hard(learner, step):
    """Add the --hard labels nearest to each positive, by the vectors of the bank, to the candidates."""
    vectors = learner.bank_vectors  # (labels, E)
    stale = torch.tensor(step.stale, device=vectors.device)
    near = vectors[step.live] @ vectors[stale].T  # (live, stale)
    hard = stale[near.topk(min(learner.cfg.hard, len(stale))).indices.unique()].tolist()
    texts = [learner.bank[label] for label in hard]
    first = len(step.rows)
    for ids, skip in learner.embedder.tokens(texts, learner.embedder.prompt_of("document")):
        step.rows.append(text_row(ids, [len(step.rows), skip]))
    added = torch.arange(first, len(step.rows), device=vectors.device)
    step.candidate = torch.cat([step.candidate, added])
    step.candidate_label = F.pad(step.candidate_label, (0, len(hard)), value=NO_LABEL)
    step.stale = sorted({*step.stale} - {*hard})
