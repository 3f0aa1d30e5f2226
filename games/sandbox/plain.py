"""Plain values across a process border, as JSON: None, bool, int, float, str, lists, tuples, dicts of them.
`pack` runs beside a model's programs and calls no method of theirs; `unpack` reads what they may forge."""

from itertools import chain

import numpy as np

OUTPUT = 1 << 18  # bytes of an answer
ITEMS, DEPTH = 1 << 17, 32  # values inside a value, levels of them
KEYS = 1000  # of a dict: keys made to collide cost their square
LEAVES = {type(None), bool, int, float}
NUMBERS = {np.dtype(code).type for code in "?bhilqBHILQefd"}


def flatness(value):
    """1 for a list of numbers, 2 for a list of lists of them (a grid), else 0: found without a loop."""
    if LEAVES.issuperset(map(type, value)):
        return 1
    rows = {list}.issuperset(map(type, value))
    return 2 if rows and LEAVES.issuperset(map(type, chain.from_iterable(value))) else 0


def pack(value, items=ITEMS):
    """What json can write of a plain value: tuples become {"t": [...]}, dicts {"d": [[key, value], ...]},
    arrays of integers lists, numpy's numbers Python's. ValueError for all else, subclasses included."""
    left = items

    def walk(x, depth):
        nonlocal left
        kind = type(x)
        if kind in LEAVES or kind is str:
            return x
        if kind in NUMBERS:
            return x.item()
        size = x.size if kind is np.ndarray else len(x) if kind in (list, tuple, dict) else 0
        flat = flatness(x) if kind is list else 0
        left -= size + sum(map(len, x)) if flat == 2 else size
        if left < 0 or depth > DEPTH or (kind is dict and size > KEYS):
            raise ValueError(f"more than {items} items, {DEPTH} levels or {KEYS} keys")
        if flat:
            return list(x) if flat == 1 else list(map(list, x))
        if kind is list or kind is tuple:
            inside = [walk(v, depth + 1) for v in x]
            return inside if kind is list else {"t": inside}
        if kind is dict:
            return {"d": [[walk(k, depth + 1), walk(v, depth + 1)] for k, v in x.items()]}
        if kind is np.ndarray and x.dtype.kind in "iu" and x.ndim < DEPTH:
            return x.tolist()
        raise ValueError(f"not a plain value: {kind.__name__}")

    return walk(value, 0)


def unpack(value, depth=0):
    """The plain value that `pack` wrote, from what json.loads read. Raises ValueError for anything else."""
    kind = type(value)
    if depth > DEPTH:
        raise ValueError("nested too deep")
    if kind is list:
        return value if flatness(value) else [unpack(v, depth + 1) for v in value]
    if kind is str:
        value.encode()  # half a surrogate pair is a UnicodeEncodeError, which is a ValueError
    if kind is not dict:
        return value
    tag, inside = next(iter(value.items()), (None, None))
    if len(value) != 1 or tag not in ("t", "d") or type(inside) is not list:
        raise ValueError("an unknown tag")
    if tag == "t":
        return tuple(unpack(v, depth + 1) for v in inside)
    if len(inside) > KEYS or any(type(pair) is not list or len(pair) != 2 for pair in inside):
        raise ValueError("not a dict")
    pairs = [(unpack(k, depth + 1), unpack(v, depth + 1)) for k, v in inside]
    try:
        result = dict(pairs)
    except TypeError as error:
        raise ValueError("a key that has no hash") from error
    if len(result) < len(pairs):
        raise ValueError("equal keys")
    return result


def as_arrays(value):
    """The value with numpy arrays of int64 in place of lists of rows of integers, all of one length."""
    if type(value) is list and flatness(value) == 2 and len(set(map(len, value))) == 1:
        array = np.array(value) if {int}.issuperset(map(type, chain.from_iterable(value))) else None
        return value if array is None or array.dtype != np.int64 or not array.size else array
    if type(value) in (list, tuple):
        return type(value)(map(as_arrays, value))
    return {k: as_arrays(v) for k, v in value.items()} if type(value) is dict else value
