"""The rotation that tells queries and keys their positions (RoPE, arXiv 2104.09864), and its scalings for
long texts: their settings in a config.json, then their angles. Shapes as in model.py."""

import math

import torch

from files import FLAG, by_key, check_fields, number, one_of, whole

LENGTH = whole(1, 1 << 31)
POSITIVE = number(1e-6, 1e12)
TYPES = {  # -> the settings that each needs
    "default": (),
    "linear": ("factor",),
    "dynamic": ("factor", "max_position_embeddings"),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"),
    "yarn": ("factor", "original_max_position_embeddings"),
}
OPTIONS = {  # -> the settings that each may have
    "yarn": ("attention_factor", "beta_fast", "beta_slow", "mscale", "mscale_all_dim", "truncate"),
}
KINDS = by_key(  # of rope_scaling, or of one kind of layer in rope_parameters
    {
        one_of(*TYPES): "rope_type type",
        POSITIVE: "rope_theta factor low_freq_factor high_freq_factor attention_factor beta_fast beta_slow",
        number(0, 1e6): "mscale mscale_all_dim",
        FLAG: "truncate",
        LENGTH: "max_position_embeddings original_max_position_embeddings",
        number(1, 1): "partial_rotary_factor",
    }
)


def rope_from_hf(settings: dict, kind: str, theta: str, kinds: dict, where) -> dict:
    """The rotary settings of one kind of layer, from either dialect.

    The older one has a base (under the key `theta`) and rope_scaling at the top level, for full layers;
    transformers 5 has rope_parameters, which are nested by kind where sliding layers have their own.

    kinds: of the keys that may hold other values in this family. Raises ValueError that names what is
    wrong."""
    kinds = KINDS | {key: kinds[key] for key in kinds.keys() & KINDS}
    key = "rope_parameters" if settings.get("rope_parameters") else "rope_scaling"
    rope = settings.get(key, {})
    if rope.keys() & {"full_attention", "sliding_attention"}:
        key += f".{kind}"
        rope = rope.get(kind, {})
    elif kind == "sliding_attention":
        rope = {}
    where = f"{where}: {key}"
    check_fields(where, rope, kinds)
    given = {"rope_theta": float(settings.get(theta, 10_000.0))}
    given |= {key: value for key, value in rope.items() if value is not None}
    name = given.get("rope_type") or given.get("type") or "default"
    given["max_position_embeddings"] = settings.get("max_position_embeddings")
    check_fields(where, given, kinds, TYPES[name])
    if name == "llama3" and given["low_freq_factor"] >= given["high_freq_factor"]:
        raise ValueError(f"{where}: low_freq_factor must be less than high_freq_factor")
    width = settings["head_dim"]
    if width % 2 or (name == "dynamic" and width == 2):  # dynamic scaling divides by width - 2
        raise ValueError(f"{where}: head_dim {width} cannot be rotated ({name} rotation)")
    options = [key for key in OPTIONS.get(name, ()) if key in given]
    return {"rope_type": name} | {key: given[key] for key in ("rope_theta", *TYPES[name], *options)}


# ------------------------------------------------------------------------------------------------ angles
def llama3_scaling(frequencies, rope):
    """Llama 3.1's rule: long wavelengths are slowed down by `factor`, short ones kept, those between
    blended."""
    wavelengths = 2 * math.pi / frequencies
    low = rope["low_freq_factor"]
    high = rope["high_freq_factor"]
    turns = rope["original_max_position_embeddings"] / wavelengths  # within the original context
    blend = (turns - low) / (high - low)
    blend = blend.clamp(0, 1)
    slowed = (1 - blend) * frequencies / rope["factor"]
    return slowed + blend * frequencies


def yarn_scaling(frequencies, rope):
    """YaRN's rule (arXiv 2309.00071, section 3.2): pairs that make few turns within the original context are
    slowed down by `factor`, those that make many are kept, and between them is a ramp over the pairs."""
    width = 2 * len(frequencies)

    def pair_at(turns):  # the pair, as a fraction, that makes so many turns within the original context
        wavelength = rope["original_max_position_embeddings"] / turns
        return width * math.log(wavelength / (2 * math.pi)) / (2 * math.log(rope["rope_theta"]))

    first = pair_at(rope.get("beta_fast") or 32)
    last = pair_at(rope.get("beta_slow") or 1)
    if rope.get("truncate", True):
        first = math.floor(first)
        last = math.ceil(last)
    first = max(first, 0)
    last = min(last, width - 1)
    pairs = torch.arange(width // 2, dtype=torch.float32, device=frequencies.device)
    slowed = (pairs - first) / ((last - first) or 0.001)  # 0 for a pair that is kept, 1 for a slowed one
    slowed = slowed.clamp(0, 1)
    return frequencies / rope["factor"] * slowed + frequencies * (1 - slowed)


def amplitude(rope):
    """Factor of cos and sin, which makes up for the attention that a longer context dilutes (arXiv
    2309.00071, equation 22)."""
    if "attention_factor" in rope:
        return rope["attention_factor"]
    growth = max(rope["factor"], 1)
    size = lambda scale: 0.1 * scale * math.log(growth) + 1
    if rope.get("mscale") and rope.get("mscale_all_dim"):
        return size(rope["mscale"]) / size(rope["mscale_all_dim"])
    return size(1)


def rotary(rope: dict, head_dim: int, positions: torch.Tensor, dtype) -> list:
    """[cos, sin], each (B, 1, T, E), of positions (B, T). The first half of sin is negative, as `rotate`
    needs it; angles are float32 whatever the model's dtype.

    Dynamic scaling raises the base of a row that is longer than the model was trained for. It depends on that
    row's length only, so a batch means what its rows mean alone; keys in a cache keep the base that they were
    rotated with."""
    exponents = torch.arange(0, head_dim, 2, dtype=torch.float32, device=positions.device) / head_dim
    base = rope["rope_theta"]
    kind = rope["rope_type"]
    if kind == "dynamic":
        longest = rope["max_position_embeddings"]
        lengths = positions.amax(1) + 1  # (B,)
        excess = (lengths / longest).clamp(min=1) - 1  # 0 for a row within that length
        growth = 1 + rope["factor"] * excess
        base = base * growth ** (head_dim / (head_dim - 2))
        base = base[:, None, None, None]
    frequencies = base**-exponents  # (E/2,) or (B, 1, 1, E/2)
    if kind == "linear":
        frequencies = frequencies / rope["factor"]
    elif kind == "llama3":
        frequencies = llama3_scaling(frequencies, rope)
    elif kind == "yarn":
        frequencies = yarn_scaling(frequencies, rope)
    angles = positions[:, None, :, None].float() * frequencies  # (B, 1, T, E/2)
    cos = angles.cos()
    sin = angles.sin()
    if kind == "yarn":
        cos = cos * amplitude(rope)
        sin = sin * amplitude(rope)
    return [
        torch.cat((cos, cos), dim=-1).to(dtype),
        torch.cat((-sin, sin), dim=-1).to(dtype),
    ]


def rotate(x, cos, sin):
    """Rotate pairs (first half, second half) of the head width: x (B, heads, T, E), cos and sin by
    `rotary`."""
    # roll gives (second half, first half). One expression: with a name for it, tensors get other addresses,
    # and a CPU gives gradients another last bit.
    return torch.addcmul(x * cos, x.roll(x.shape[-1] // 2, dims=-1), sin)


def at_slots(rope, slots):
    """cos and sin, (1, 1, N, E), at `slots` (N,) of the flattened batch; rope holds them as (B, 1, T, E)."""
    return rope and [angles.flatten(0, 2)[None, None, slots] for angles in rope]
