"""20 Questions: pictures of evaluations and tournaments."""

import pytest

from games.twentyq import plots


def report(n=20, **more):
    group = {"n": n, "win_rate": 0.5, "interval": [0.3, 0.7]}
    return {
        "n": n,
        "metrics": {"win_rate@0": 0.9, "win_rate@0.1": 0.5, "win_rate_greedy@0": 0.8},
        "intervals": {"win_rate@0": [0.7, 1.0], "win_rate@0.1": [0.3, 0.7], "win_rate_greedy@0": [0.6, 0.9]},
        "groups": {"difficulty": {"easy": group}, "category": {"fish": group, "rare": group | {"n": 2}}},
        "records": [
            {"noise": noise, "won": won, "rounds": [["Is it alive?", "yes", "oak"]] * (won or 20)}
            for noise in (0, 0.1)
            for won in (0, 3, 20)
        ],
        **more,
    }


def is_picture(path):
    return path.read_bytes().startswith(b"\x89PNG")


def test_rows_are_shares_of_flipped_answers_and_groups_that_are_not_small():
    rates = {name: row["win_rate"] for name, row in plots.rows_of(report()).items()}
    assert rates == {"0 flipped": 0.9, "0.1 flipped": 0.5, "easy": 0.5, "fish": 0.5}


def test_evaluations_are_drawn_beside_each_other_and_tournaments_by_themselves(tmp_path):
    pytest.importorskip("matplotlib")
    row = {"agent": "table", "n": 4, "rating": [600, 500, 700]}
    row |= {"guesser": [0.5, 0.1, 0.9], "answerer": [0, 0, 1]}
    for reports in ({"a": report(), "b": report(n=9)}, {"c": report(tournament=[row, row])}):
        (written,) = plots.draw(reports, tmp_path / "all.png")
        assert is_picture(written)
    with pytest.raises(ValueError, match="c: tournaments"):
        plots.draw({"a": report(), **reports}, tmp_path / "all.png")
