"""What a run prints about its data and its figures."""

import pytest

from reports import TABLE_LINES, check_enough, table


def test_a_filter_that_leaves_almost_nothing_is_an_error():
    """A limit of 4,000 characters left 1,786 of 180,000 rows; training went on, with worse answers."""
    with pytest.raises(ValueError) as error:
        check_enough(1_786, {"with an empty answer": 14, "over 4,000 characters": 178_200}, "examples", 0.1)
    said = str(error.value)
    assert said.startswith("only 1,786 of 180,000 examples are left") and "--keep 0.1" in said
    assert "178,200 over 4,000 characters; 14 with an empty answer" in said  # the most frequent reason first


@pytest.mark.parametrize(
    "kept, dropped, least, fine",
    [
        (10, 90, 0.1, True),
        (9, 90, 0.1, False),
        (0, 1, 0.1, False),
        (0, 0, 0.1, True),
        (0, 5, 0, True),
        (5, 5, 0.6, False),
        (5, 0, 1.0, True),
    ],
)
def test_the_smallest_share_is_just_enough(kept, dropped, least, fine):
    try:
        check_enough(kept, {"reason": dropped} if dropped else {}, "x", least)
    except ValueError:
        assert not fine
    else:
        assert fine


BEFORE = {"n": 2, "metrics": {"won": 0.25}, "intervals": {"won": (0.1, 0.4)}, "baselines": {}}
AFTER = {
    "n": 40,
    "metrics": {"won": 0.5, "rounds of the games that were not lost": 12.0, "grade": None},
    "intervals": {"won": (0.375, 0.625)},
    "baselines": {"won": 1.0},
    "notes": ["birds were hard"],
}


def test_a_table_sets_an_evaluation_beside_the_one_before_and_its_baseline():
    lines = table(AFTER, BEFORE)
    cells = {name: next(line for line in lines if line.startswith(name)) for name in AFTER["metrics"]}
    assert cells["won"].split() == [
        "won",
        "0.250",
        "[0.100,",
        "0.400]",
        "0.500",
        "[0.375,",
        "0.625]",
        "1.000",
    ]
    assert cells["rounds of the games that were not lost"].split()[-2:] == ["-", "12.000"]
    assert cells["grade"].split() == ["grade", "-", "-"]
    assert "birds were hard" in lines and "40" in lines[-1]
    column = lines[0].index("after") + len("after")
    assert cells["won"][:column].endswith("0.625]") and lines[0].endswith("baseline")


def test_a_table_of_one_evaluation_has_one_column_of_figures():
    lines = table(AFTER)
    assert "before" not in lines[0]
    won = next(line for line in lines if line.startswith("won"))
    assert won.split() == ["won", "0.500", "[0.375,", "0.625]", "1.000"]


def wide(metrics):
    """An evaluation with many metrics: the last one has an interval, and the one before it a baseline."""
    names = [f"metric {i}" for i in range(metrics)]
    intervals = {names[-1]: (0.1, 0.4)}
    return AFTER | {
        "metrics": dict.fromkeys(names, 0.25),
        "intervals": intervals,
        "baselines": {names[-2]: 0.5},
        "notes": [],
    }


@pytest.mark.parametrize("metrics", [1, 22, 23, 60])
@pytest.mark.parametrize("notes", [0, 1, 40])
@pytest.mark.parametrize("before", [BEFORE, None])
def test_a_table_fits_a_screen_and_counts_the_lines_that_do_not(metrics, notes, before):
    after = wide(max(metrics, 2)) | {"notes": [f"note {i}" for i in range(notes)]}
    lines = table(after, before, file="eval.json")
    everything = table(after, before, verbose=True, file="eval.json")
    assert len(lines) <= TABLE_LINES == 25
    assert {f"metric {i}" for i in range(max(metrics, 2))} <= {line[:10].strip() for line in everything}
    if len(everything) <= 24:
        assert lines == everything
    else:
        left_out = len(everything) - (len(lines) - 1)
        assert lines[-1] == f"lines left out: {left_out} (--verbose prints them; eval.json holds all figures)"
        assert lines[-2] == everything[-1] and set(lines[:-1]) <= set(everything)


def test_metrics_with_an_interval_or_a_baseline_are_printed_before_others():
    names = [line[:10].strip() for line in table(wide(60))]
    assert names[1:5] == ["metric 0", "metric 59", "metric 58", "metric 1"]  # the main one stays first
    assert [line[:10].strip() for line in table(wide(5))][1:6] == [f"metric {i}" for i in range(5)]


def test_lines_of_groups_are_printed_with_verbose_only():
    after = AFTER | {"groups": {"birds": 0.1}}
    assert "birds were hard" not in table(after, BEFORE)
    assert table(after, BEFORE)[-1] == "lines left out: 1 (--verbose prints them)"
    assert "birds were hard" in table(after, BEFORE, verbose=True)
