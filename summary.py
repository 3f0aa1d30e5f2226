"""A model in a few lines, as `python model.py FOLDER` prints them."""

from families import Config


def describe(config: Config, name: str, parameters: int) -> list[str]:
    """A model in a few lines. name: the model_type in its file; parameters: how many it has."""
    embedding = config.vocab * config.dim * (2 if config.head == "lm" and not config.tied else 1)
    slides = sum(config.sliding)
    states = len(config.recurrent)
    full = config.layers - slides - states
    kinds = [f"{full} full"] if full else []
    if states:
        kinds.append(f"{states} with a state")
    if slides:
        kinds.append(f"{slides} sliding, {config.reach} tokens back" + " and ahead" * (not config.causal))
    heads = f"{config.heads} heads"
    if config.heads > config.kv_heads:
        heads += f" on {config.kv_heads} keys"
    saved_as = config.hf["model_type"]
    settings = [(key, value) for key, value in (config.rope or {}).items() if type(value) is not tuple]
    rotation = ", ".join(f"{key} {value}" for key, value in settings)
    if config.unrotated:
        rotation += f"; no rotation in {sum(config.unrotated)} of the layers"
    learned = f"{config.places - config.place_offset} learned" if config.places else "none"
    purposes = {
        "lm": "next token" + ", tied to the embedding" * config.tied,
        "none": "none",
        "classes": f"{config.labels} classes, {config.pooling} pooling",
    }
    lines = {
        "family": name if saved_as == name else f"{name}, saved as {saved_as}",
        "parameters": f"{parameters:,}, including {embedding:,} for the vocabulary of {config.vocab:,}",
        "layers": f"{', '.join(kinds)}; {config.norms} {config.norm} norm",
        "width": f"{config.dim}, {heads} of {config.head_dim}, MLP {config.mlp_dim} {config.activation}",
        "positions": rotation or learned,
        "head": purposes[config.head],
    }
    if config.causal:
        # a key and a value of 2 bytes each per head and layer, for 1,000 tokens
        megabytes = 4e-3 * (config.layers - states) * config.kv_heads * config.head_dim
        lines["cache"] = (
            f"{megabytes:,.1f} MB per 1,000 tokens in bfloat16, {2 * megabytes:,.1f} MB in float32"
        )
    return [f"{title:<10} {text}" for title, text in lines.items()]
