"""Plain values across a process border, as JSON: None, bool, int, float, complex, str, and lists, tuples,
sets and dicts of plain values. `pack` runs in the same process as a model's program and calls none of that
program's methods; `unpack` runs in the parent and reads what the program may have forged."""

from collections import Counter, OrderedDict, defaultdict
from itertools import chain

import numpy as np

OUTPUT = 1 << 18  # largest answer in bytes
ITEMS = 1 << 17  # most values inside a value
DEPTH = 32  # most levels of values in values
KEYS = 1000  # most keys of a dict or set; keys made to collide take time that grows with their square
LEAVES = {type(None), bool, int, float}
NUMBERS = {np.dtype(code).type for code in "?bhilqBHILQefd"}  # numpy's number types
TAGS = {tuple: "t", set: "s", frozenset: "f"}
DICTS = {dict, Counter, OrderedDict, defaultdict}  # they equal a dict of the same items


def flatness(value):
    """1 for a list of numbers, 2 for a list of lists of numbers (a grid), else 0. It needs no Python loop,
    which would be slow for large grids."""
    if LEAVES.issuperset(map(type, value)):
        return 1
    if {list}.issuperset(map(type, value)) and LEAVES.issuperset(map(type, chain.from_iterable(value))):
        return 2
    return 0


def pack(value, items=ITEMS):
    """A plain value as json can write it. Tuples become {"t": [...]}, sets {"s": [...]}, frozensets
    {"f": [...]}, complex numbers {"c": [real, imaginary]}, dicts and the dicts of `collections`
    {"d": [[key, value], ...]}, arrays of integers become lists, and numpy's numbers become Python's.
    ValueError for all else, other subclasses included: a subclass may have methods of the program."""
    left = items

    def walk(x, depth):
        nonlocal left
        kind = type(x)
        if kind in LEAVES or kind is str:
            return x
        if kind in NUMBERS:
            return x.item()
        if kind is complex:
            return {"c": [x.real, x.imag]}

        size = 0
        if kind is np.ndarray:
            size = x.size
        elif kind in DICTS:
            size = dict.__len__(x)  # a program may have replaced the methods of Counter
        elif kind is list or kind in TAGS:
            size = len(x)
        flat = flatness(x) if kind is list else 0
        left -= size
        if flat == 2:
            left -= sum(map(len, x))
        if left < 0 or depth > DEPTH or (size > KEYS and kind not in (list, tuple, np.ndarray)):
            raise ValueError(f"more than {items} items, {DEPTH} levels or {KEYS} keys")

        # A copy, also of what needs no conversion: the program may change its lists before they are written.
        if flat == 1:
            return list(x)
        if flat == 2:
            return list(map(list, x))
        if kind is list or kind in TAGS:
            inside = [walk(item, depth + 1) for item in x]
            return inside if kind is list else {TAGS[kind]: inside}
        if kind in DICTS:
            return {"d": [[walk(key, depth + 1), walk(item, depth + 1)] for key, item in dict.items(x)]}
        if kind is np.ndarray and x.dtype.kind in "iu" and x.ndim < DEPTH:
            return x.tolist()
        raise ValueError(f"not a plain value: {kind.__name__}")

    return walk(value, 0)


def unpack(value, depth=0):
    """The plain value behind the output of `pack`, after json.loads. ValueError for anything else."""
    kind = type(value)
    if depth > DEPTH:
        raise ValueError("nested too deep")
    if kind is list:
        return value if flatness(value) else [unpack(item, depth + 1) for item in value]
    if kind is str:
        value.encode()  # half a surrogate pair raises UnicodeEncodeError, which is a ValueError
    if kind is not dict:
        return value

    tag, inside = next(iter(value.items()), (None, None))
    if len(value) != 1 or tag not in (*"tsfcd",) or type(inside) is not list:
        raise ValueError("an unknown tag")
    if tag == "c":
        if [*map(type, inside)] != [float, float]:
            raise ValueError("not a complex number")
        return complex(*inside)
    if tag == "d":
        if any(type(pair) is not list or len(pair) != 2 for pair in inside):
            raise ValueError("not a dict")
        inside = [(unpack(key, depth + 1), unpack(item, depth + 1)) for key, item in inside]
    else:
        inside = [unpack(item, depth + 1) for item in inside]
    if tag == "t":
        return tuple(inside)
    if len(inside) > KEYS:
        raise ValueError("too many keys")
    try:
        result = {"s": set, "f": frozenset, "d": dict}[tag](inside)
    except TypeError as error:
        raise ValueError("a key that has no hash") from error
    if len(result) < len(inside):
        raise ValueError("equal keys")
    return result


def exact(value):
    """A text of an unpacked value, equal for two values if they are the same: unlike under ==, True, 1 and
    1.0 differ, and nan is nan. Sets and dicts have no order."""
    kind = type(value)
    if kind is dict:
        parts = sorted(f"{exact(key)}: {exact(item)}" for key, item in value.items())
    elif kind in (set, frozenset):
        parts = sorted(map(exact, value))
    elif kind in (list, tuple) and not flatness(value):
        parts = map(exact, value)
    else:
        return repr(value)
    return f"{kind.__name__}({', '.join(parts)})"


def as_arrays(value):
    """The value with numpy arrays of int64 in place of all grids: lists of rows of integers, all rows of one
    length."""
    kind = type(value)
    if kind is list and flatness(value) == 2 and len(set(map(len, value))) == 1:
        if not {int}.issuperset(map(type, chain.from_iterable(value))):
            return value
        array = np.array(value)
        # Rows without cells, and integers beyond 64 bits (another dtype), stay lists.
        return array if array.size and array.dtype == np.int64 else value
    if kind in (list, tuple):
        return kind(map(as_arrays, value))
    if kind is dict:
        return {key: as_arrays(item) for key, item in value.items()}
    return value
