"""The rotation that tells queries and keys their positions (RoPE, arXiv 2104.09864), and its scalings for
long texts: their settings in a config.json, then their angles. Shapes as in model.py."""

import math
from functools import lru_cache

import torch

from files import FLAG, by_key, check_fields, list_of, number, one_of, whole

LENGTH = whole(1, 1 << 31)
POSITIVE = number(1e-6, 1e12)
QUERY_GROWTH = "llama_4_scaling_beta"  # in files: by how much queries grow with their position
TYPES = {  # -> the settings that each needs
    "default": (),
    "linear": ("factor",),
    "dynamic": ("factor", "max_position_embeddings"),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"),
    "yarn": ("factor", "original_max_position_embeddings"),
    "longrope": (
        "short_factor",
        "long_factor",
        "max_position_embeddings",
        "original_max_position_embeddings",
    ),
}
OPTIONS = {  # -> the settings that each may have
    "yarn": (
        "attention_factor",
        "beta_fast",
        "beta_slow",
        "mscale",
        "mscale_all_dim",
        "truncate",
        QUERY_GROWTH,
    ),
    "longrope": ("factor", "attention_factor"),
}
KINDS = by_key(  # of rope_scaling, or of one kind of layer in rope_parameters
    {
        one_of(*TYPES): "rope_type type",
        POSITIVE: "rope_theta factor low_freq_factor high_freq_factor attention_factor beta_fast beta_slow",
        number(0, 1e6): "mscale mscale_all_dim",
        FLAG: "truncate",
        list_of(POSITIVE): "short_factor long_factor",
        LENGTH: "max_position_embeddings original_max_position_embeddings",
        number(1, 1): "partial_rotary_factor",
        one_of(None): QUERY_GROWTH,
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
    given["partial_rotary_factor"] = settings.get("partial_rotary_factor", 1)
    given |= {key: value for key, value in rope.items() if value is not None}
    if "original_max_position_embeddings" in settings:
        given["original_max_position_embeddings"] = settings["original_max_position_embeddings"]
    name = given.get("rope_type") or given.get("type") or "default"
    given["max_position_embeddings"] = settings.get("max_position_embeddings")
    check_fields(where, given | {"rope_type": name}, kinds, TYPES[name])
    if name == "llama3" and given["low_freq_factor"] >= given["high_freq_factor"]:
        raise ValueError(f"{where}: low_freq_factor must be less than high_freq_factor")
    if name in OPTIONS and 1 in (given["rope_theta"], given["original_max_position_embeddings"]):
        raise ValueError(  # their logarithms are divided by
            f"{where}: rope_theta and original_max_position_embeddings must not be 1 ({name} rotation)"
        )
    part = given["partial_rotary_factor"]
    width = rotated_width(given, settings["head_dim"])
    if width < 2 or width % 2 or (name == "dynamic" and width == 2):  # dynamic scaling divides by width - 2
        raise ValueError(
            f"{where}: {width} numbers (partial_rotary_factor {part}) of head_dim "
            f"{settings['head_dim']} cannot be rotated ({name} rotation)"
        )
    options = [key for key in OPTIONS.get(name, ()) if key in given]
    if part != 1:
        options.append("partial_rotary_factor")
    found = {"rope_type": name} | {key: given[key] for key in ("rope_theta", *TYPES[name], *options)}
    for key in ("short_factor", "long_factor"):
        if key in found:
            found[key] = tuple(found[key])  # of each pair
            if len(found[key]) != width // 2:
                raise ValueError(f"{where}: {key} has {len(found[key])} numbers, expected {width // 2}")
    return found


def rotated_width(rope, head_dim):
    """How many numbers of each head are rotated: the first ones."""
    return int(head_dim * rope.get("partial_rotary_factor", 1))


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

    first = pair_at(rope.get("beta_fast", 32))
    last = pair_at(rope.get("beta_slow", 1))
    if rope.get("truncate", True):
        first = math.floor(first)
        last = math.ceil(last)
    first = max(first, 0)
    last = min(last, width - 1)
    pairs = torch.arange(width // 2, dtype=torch.float32, device=frequencies.device)
    slowed = (pairs - first) / ((last - first) or 0.001)  # 0 for a pair that is kept, 1 for a slowed one
    slowed = slowed.clamp(0, 1)
    return frequencies / rope["factor"] * slowed + frequencies * (1 - slowed)


@lru_cache
def pair_factors(short, long, device):
    """The two lists of LongRoPE's factors as a tensor (2, R/2). It is kept, as a CUDA graph needs it."""
    return torch.tensor((short, long), device=device)


def longrope_scaling(frequencies, rope, positions):
    """LongRoPE's rule (arXiv 2402.13753): each pair is slowed down by a factor of its own, from one list in
    rows (B, T) within the original context, from another in longer ones. Returns (B, 1, 1, R/2)."""
    factors = pair_factors(rope["short_factor"], rope["long_factor"], frequencies.device)
    long = positions.amax(1) >= rope["original_max_position_embeddings"]  # (B,)
    return frequencies / factors[long.long()][:, None, None]


def amplitude(rope):
    """Factor of cos and sin, which makes up for the attention that a longer context dilutes: YaRN's (arXiv
    2309.00071, equation 22), or LongRoPE's."""
    if "attention_factor" in rope:
        return rope["attention_factor"]
    if rope["rope_type"] == "longrope":
        original = rope["original_max_position_embeddings"]
        growth = max(rope.get("factor") or rope["max_position_embeddings"] / original, 1)
        return math.sqrt(1 + math.log(growth) / math.log(original))
    growth = max(rope["factor"], 1)
    size = lambda scale: 0.1 * scale * math.log(growth) + 1
    if rope.get("mscale") and rope.get("mscale_all_dim"):
        return size(rope["mscale"]) / size(rope["mscale_all_dim"])
    return size(1)


def rotary(rope: dict, head_dim: int, positions: torch.Tensor, dtype) -> list:
    """[cos, sin], each (B, 1, T, R), of positions (B, T), where R is the rotated width. The first half of sin
    is negative, as `rotate` needs it; angles are float32 whatever the model's dtype.

    Dynamic scaling raises the base of a row that is longer than the model was trained for, and LongRoPE
    changes its frequencies. Both depend on that row's length only, so a batch means what its rows mean alone.
    Keys in a cache keep the base that they were rotated with; for LongRoPE a Session reads them again.

    Where queries grow with their position, cos and sin for queries follow, so there are four tensors."""
    width = rotated_width(rope, head_dim)
    exponents = torch.arange(0, width, 2, dtype=torch.float32, device=positions.device) / width
    base = rope["rope_theta"]
    kind = rope["rope_type"]
    if kind == "dynamic":
        longest = rope["max_position_embeddings"]
        lengths = positions.amax(1) + 1  # (B,)
        excess = (lengths / longest).clamp(min=1) - 1  # 0 for a row within that length
        growth = 1 + rope["factor"] * excess
        base = base * growth ** (width / (width - 2))
        base = base[:, None, None, None]
    frequencies = base**-exponents  # (R/2,) or (B, 1, 1, R/2)
    if kind == "linear":
        frequencies = frequencies / rope["factor"]
    elif kind == "llama3":
        frequencies = llama3_scaling(frequencies, rope)
    elif kind == "yarn":
        frequencies = yarn_scaling(frequencies, rope)
    elif kind == "longrope":
        frequencies = longrope_scaling(frequencies, rope, positions)
    angles = positions[:, None, :, None].float() * frequencies  # (B, 1, T, R/2)
    cos = angles.cos()
    sin = angles.sin()
    if kind in ("yarn", "longrope"):
        factor = amplitude(rope)
        cos = cos * factor
        sin = sin * factor
    cos = torch.cat((cos, cos), dim=-1)
    sin = torch.cat((-sin, sin), dim=-1)
    if QUERY_GROWTH not in rope:
        return [cos.to(dtype), sin.to(dtype)]
    contexts = positions // rope["original_max_position_embeddings"]  # (B, T): whole ones before a token
    growth = 1 + rope[QUERY_GROWTH] * torch.log1p(contexts.float())[:, None, :, None]  # (B, 1, T, 1)
    return [angles.to(dtype) for angles in (cos, sin, cos * growth, sin * growth)]


def rotate(x, cos, sin):
    """Rotate pairs (first half, second half) of the first R numbers of each head: x (B, heads, T, E), cos and
    sin (B, 1, T, R) by `rotary`."""
    width = cos.shape[-1]
    if width < x.shape[-1]:
        return torch.cat((rotate(x[..., :width], cos, sin), x[..., width:]), dim=-1)
    # roll gives (second half, first half). One expression: with a name for it, tensors get other addresses,
    # and a CPU gives gradients another last bit.
    return torch.addcmul(x * cos, x.roll(x.shape[-1] // 2, dims=-1), sin)


def at_slots(rope, slots):
    """cos and sin, (1, 1, N, R), at `slots` (N,) of the flattened batch; rope holds them as (B, 1, T, R)."""
    return rope and [angles.flatten(0, 2)[None, None, slots] for angles in rope]
