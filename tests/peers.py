"""Models of transformers for tests: new ones with random weights, those of a folder, what they compute."""

import torch
import transformers
from conftest import ENCODERS, tiny_hf
from torch.testing import assert_close

NO_CLASSES = {"granite", "granitemoehybrid"}  # families of which transformers has no classifiers
IDS = torch.randint(300, (2, 40), generator=torch.Generator().manual_seed(0))


def near(actual, expected):
    assert_close(actual, expected, atol=2e-5, rtol=2e-5)


@torch.no_grad()
def ours(model, ids=IDS):
    return model.logits(model(ids))


@torch.no_grad()
def theirs(model, ids=IDS):
    return model.eval()(input_ids=ids).logits


def open_there(folder):
    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


def new_there(family, seed=0, **changes):
    """A random model of theirs, of a family's tiny shape with changes."""
    kind = transformers.AutoModel if family in ENCODERS else transformers.AutoModelForCausalLM
    config = transformers.AutoConfig.for_model(**tiny_hf(family, **changes))
    return randomise(kind.from_config(config, dtype=torch.float32), seed)


def new_of_kind(kind, hf):
    """The same of a class of theirs and a config.json."""
    return randomise(getattr(transformers, kind)(transformers.AutoConfig.for_model(**hf)))


@torch.no_grad()
def randomise(model, seed=0):
    """Random weights at which mistakes show: norms and biases away from one and zero."""
    generator = torch.Generator().manual_seed(seed)
    for weight in model.parameters():
        fresh = torch.empty(weight.shape).normal_(0, 1, generator=generator)
        weight.copy_(0.3 + 0.5 * fresh if weight.dim() == 1 else fresh * 1.5 / weight.shape[1] ** 0.5)
    return model.eval()
