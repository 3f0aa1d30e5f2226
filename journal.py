"""Journals: long work that is killed goes on where it was."""

import hashlib
import json
import os
from glob import escape, glob
from pathlib import Path

from tqdm import tqdm

import ranks
from files import (
    COUNT,
    OBJECT,
    TEXT,
    Kind,
    append,
    check_fields,
    complete_lines,
    either,
    json_lines,
    write_rows,
)
from games.rows import parse_json


class Journal:
    """Rows of work done, for a call that was killed to go on with: a file with one {"row": key, ...,
    "settings"} on each line.

    An incomplete last line, as a kill leaves it, is cut off. Raises ValueError where the file was made with
    other settings, or a row lacks one of these fields. Nothing is written before the first row; without a
    path, nothing at all."""

    def __init__(self, path, settings: dict, fields: dict[str, Kind] | None = None):
        self.path = path and Path(path)
        self.rows = {}
        self.settings = json.loads(json.dumps(settings))  # as they will be read back
        if path and os.path.lexists(path):
            self.read(path, fields)
        if path and ranks.is_first():
            self.join()

    def read(self, path, fields):
        """Read the rows of the file, and cut off an incomplete last line."""
        lines, rest = complete_lines(path)
        start = '{"row": '
        part = rest[: len(start)].decode("utf-8", "replace")  # all or a part of it
        if not (all(line.startswith(start) for line in lines) and start.startswith(part)):
            raise ValueError(f"{path}: not a journal, and it was left unchanged; choose another --out")

        wanted = {"row": either(COUNT, TEXT), **(fields or {})}
        for number, line in enumerate(lines, 1):
            row = parse_json(line, path, number)
            check_fields(f"{path}, line {number}", row, {**wanted, "settings": OBJECT}, list(wanted))
            self.rows[row["row"]] = row

        # rows made with other settings must not end up in one result
        for row in self.rows.values():
            before = row.get("settings") or {}
            for name, now in self.settings.items():
                was = before.get(name)
                if was != now:
                    raise ValueError(f"{path}: made with {name} {was!r}, now {now!r}; choose another --out")
        if rest and ranks.is_first():
            os.truncate(path, os.path.getsize(path) - len(rest))

    def join(self):
        """Take over what the journals of ranks hold, in order, and remove them."""
        parts = sorted(glob(f"{escape(str(self.path))}.rank-*"))
        for part in parts:
            self.rows |= Journal(part, self.settings).rows
        if parts:
            write_rows(self.path, [self.rows[number] for number in sorted(self.rows)])
        for part in parts:
            os.remove(part)

    def add(self, rows: list):
        """Add rows and write them to disk at once."""
        rows = [row | {"settings": self.settings} for row in rows]
        self.rows |= {row["row"]: row for row in rows}
        if self.path:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            append(self.path, json_lines(rows), to_disk=True)

    def fill(self, inputs: list, size: int, unit: str, work):
        """Add the rows that are missing, a row for each input, for `size` inputs at a time: work(start, part,
        bar) yields (place in the part, row).

        Results depend on the part only, not on what happened before a kill. So an unfinished part is computed
        again in full, and the rows that the journal already has stay as they are. Each row keeps a hash of
        its input: raises ValueError if a row was made from another input than the one that has its number
        now.

        Under torchrun the ranks share the parts, and each writes a journal of its own beside this one. At the
        end the first rank joins them, and only it returns."""
        rank, world = ranks.here()
        self.rows = ranks.gather(self.rows)[0]
        own = self
        if world > 1:
            own = Journal(self.path and f"{self.path}.rank-{rank}", self.settings)
            own.rows = dict(self.rows)
        hashes = [digest(value) for value in inputs]
        for number, row in self.rows.items():
            if number not in range(len(inputs)) or row.get("made_from") != hashes[number]:
                raise ValueError(
                    f"{self.path}: row {number} was made from something else than row {number} of this call; "
                    "choose another --out"
                )

        quiet = True if rank else None  # None: where there is no terminal
        with tqdm(total=len(inputs), initial=len(self.rows), unit=unit, disable=quiet) as bar:
            for start in range(rank * size, len(inputs), world * size):
                part = inputs[start : start + size]
                if all(start + place in own.rows for place in range(len(part))):
                    continue
                for place, row in work(start, part, bar):
                    number = start + place
                    if number not in own.rows:
                        ours = {"row": number, "made_from": hashes[number]}
                        own.add([ours | row | ours])  # "row" stays in front
                        bar.update(1)

        if world > 1:
            for rows in ranks.gather(own.rows):
                self.rows |= rows
            if rank:
                ranks.leave(0)
            self.join()


def digest(value) -> str:
    """A hash of plain data."""
    return hashlib.sha256(repr(value).encode("utf-8", "replace")).hexdigest()[:16]
