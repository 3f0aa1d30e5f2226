"""Names of Python's and numpy's that a program may use and still share a child with other programs.

A program that uses any other name of a library runs alone (child.py, `tame`), for somebody may know how it
changes what the next program sees, as np.errstate, types.SimpleNamespace or textwrap.TextWrapper can. A name
belongs here if no attribute of this name, of anything that a program can reach by such names,
  - changes another object than the one it is called on or is given,
  - makes a class or an object whose attributes have names made at run time (`copy` does what these say),
  - is a module that no program may import, a class of classes, or something changeable that all share.
tests/games/sandbox/test_sandbox.py looks for the last. Names that no library has are a program's own, and
free.

The paragraphs: modules; what Python itself reads or writes; builtins; exceptions; methods of text, of
numbers, of containers; collections and queue; itertools, functools, heapq and bisect; operator; math, cmath
and statistics; copy, random, string, re, fractions and decimal; typing; arrays; numpy's functions; its types;
numpy.random and numpy.linalg; names of a program's own which things out of its reach have as well."""

HARMLESS = set(
    """
    __future__ abc array bisect cmath collections copy dataclasses datetime decimal enum fractions
    functools heapq itertools json linalg math np numbers numpy operator queue random re statistics string
    textwrap types typing unicodedata warnings

    _ __ __annotations__ __doc__ __module__ __name__ __qualname__ annotations

    abs all any ascii bin bool bytearray bytes callable chr classmethod complex dict divmod enumerate
    filter float format frozenset hasattr hash hex id int isinstance issubclass iter len list map max min
    next object oct ord pow print property range repr reversed round set slice sorted staticmethod str sum
    super tuple zip

    args ArithmeticError AssertionError AttributeError BaseException Exception FloatingPointError
    IndexError KeyError LookupError MemoryError NameError NotImplementedError OverflowError RecursionError
    RuntimeError StopIteration TypeError UnboundLocalError UnicodeDecodeError UnicodeEncodeError
    UnicodeError ValueError ZeroDivisionError

    capitalize casefold center count decode encode endswith expandtabs find fromhex index isalnum isalpha
    isascii isdecimal isdigit isidentifier islower isnumeric isprintable isspace istitle isupper join
    ljust lower lstrip maketrans partition removeprefix removesuffix replace rfind rindex rjust rpartition
    rsplit rstrip split splitlines startswith strip swapcase title translate upper zfill

    as_integer_ratio bit_count bit_length conjugate denominator from_bytes imag is_integer numerator real
    to_bytes

    add append clear difference difference_update discard extend fromkeys get insert intersection
    intersection_update isdisjoint issubset issuperset items keys pop popitem remove reverse send
    setdefault sort start step stop symmetric_difference symmetric_difference_update union update value
    values

    appendleft ChainMap Counter defaultdict deque elements empty extendleft full LifoQueue maxlen
    most_common move_to_end namedtuple OrderedDict popleft PriorityQueue put qsize Queue rotate subtract
    total

    accumulate batched bisect_left bisect_right cache chain cmp_to_key combinations
    combinations_with_replacement compress cycle dropwhile filterfalse from_iterable groupby heapify
    heappop heappush heappushpop heapreplace insort insort_left insort_right islice lru_cache merge
    nlargest nsmallest pairwise partial permutations product reduce repeat starmap takewhile tee
    zip_longest

    and_ concat contains countOf eq floordiv ge getitem gt indexOf inv invert is_ is_not itemgetter le
    lshift lt mod mul ne neg not_ or_ pos rshift sub truediv truth xor

    acos acosh asin asinh atan atan2 atanh ceil comb copysign cos cosh degrees dist e erf erfc exp exp2
    expm1 fabs factorial floor fmean fmod frexp fsum gamma gcd geometric_mean harmonic_mean hypot inf
    isclose isfinite isinf isnan isqrt lcm ldexp lgamma log log10 log1p log2 mean median median_high
    median_low mode modf multimode nan nextafter perm phase pi polar prod pstdev pvariance quantiles
    radians rect remainder sin sinh sqrt stdev sumprod tan tanh tau trunc ulp variance

    ascii_letters ascii_lowercase ascii_uppercase betavariate choice choices Decimal dedent deepcopy
    digits DOTALL end expovariate findall finditer Fraction fullmatch gauss getrandbits group groupdict
    groups hexdigits IGNORECASE indent limit_denominator match MULTILINE printable punctuation quantize
    randbytes randint Random randrange sample search seed shuffle span subn triangular uniform whitespace

    Any Callable cast Collection Container DefaultDict Deque Dict FrozenSet Generator Hashable Iterable
    Iterator List Literal Mapping MutableMapping MutableSequence MutableSet NamedTuple NDArray Optional
    Sequence Set Sized Tuple TypeAlias Union

    argmax argmin argpartition argsort astype choose clip cumprod cumsum diagonal dot dtype fill flat
    flatten item itemsize kind nbytes ndim nonzero ptp ravel reshape searchsorted shape size squeeze std
    swapaxes T take tobytes tolist trace transpose var

    absolute allclose amax amin angle apply_along_axis apply_over_axes arange arccos arcsin arctan arctan2
    argwhere around array_equal array_equiv array_split asanyarray asarray ascontiguousarray at atleast_1d
    atleast_2d atleast_3d average base_repr binary_repr bincount bitwise_and bitwise_count bitwise_not
    bitwise_or bitwise_xor block broadcast_arrays broadcast_to c_ cbrt column_stack concatenate convolve
    copyto corrcoef correlate count_nonzero cov cross deg2rad delete diag diag_indices diag_indices_from
    diagflat diff digitize divide dsplit dstack ediff1d einsum empty_like equal expand_dims extract eye
    fill_diagonal fix flatnonzero flip fliplr flipud float_power floor_divide fmax fmin fromfunction
    fromiter frompyfunc full_like geomspace gradient greater greater_equal heaviside histogram histogram2d
    hsplit hstack identity in1d indices inner interp intersect1d isin isneginf isposinf isreal isscalar
    issubdtype ix_ kron left_shift less less_equal lexsort linspace logaddexp logical_and logical_not
    logical_or logical_xor logspace mask_indices matmul matrix_transpose maximum meshgrid mgrid minimum
    moveaxis multiply nan_to_num nanargmax nanargmin nanmax nanmean nanmedian nanmin nanstd nansum
    ndenumerate ndindex negative newaxis not_equal ogrid ones ones_like outer packbits pad percentile
    permute_dims piecewise place positive power put_along_axis putmask quantile r_ rad2deg
    ravel_multi_index reciprocal reduceat right_shift rint roll rollaxis roots rot90 round_ row_stack s_
    select setdiff1d setxor1d sign signbit sort_complex square stack take_along_axis tensordot tile tri
    tril tril_indices tril_indices_from trim_zeros triu triu_indices triu_indices_from true_divide union1d
    unique unique_counts unique_values unpackbits unravel_index unwrap vander vdot vectorize vsplit vstack
    where zeros zeros_like

    bool_ complex128 double finfo float16 float32 float64 generic iinfo inexact int16 int32 int64 int8
    int_ intc integer intp ndarray number signedinteger uint uint16 uint32 uint64 uint8 unsignedinteger

    binomial default_rng det eig eigh eigvals integers lstsq matrix_power matrix_rank norm normal
    permutation permuted pinv poisson rand randn random_sample RandomState slogdet solve standard_normal
    svd

    A a axis B b before bits C c canonical compare connect D d degree depth digit dims E expand F f frame
    G g get_key get_objects get_value H h half height hits I i interval is_mask is_valid J j K k keep key
    L l last left line lines link M m main mapping mask masked matrix move N n name names nearest new node
    normalize num O o offset offsets order others over overlap P p pad_left pad_right parent parents
    pattern patterns positions prefix prev Q q R r rest right S s seen shift shorten simple single slope
    stone symbol symbols t target targets text thing times token tokens trim trimseq U u unit V v variable
    W w walk width window X x Y y Z z
""".split()
)
