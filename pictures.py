"""What every picture needs: matplotlib without a screen, rows of dots with intervals, and writing the file.

plots.py draws runs; each game draws its own pictures in its plots.py."""

from pathlib import Path

from files import regular


def pyplot():
    """matplotlib.pyplot, set up to draw into files. ValueError with the pip command where it is missing."""
    try:
        import matplotlib
    except ImportError as error:
        raise ValueError("plots need matplotlib: pip install matplotlib") from error
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    return plt


def draw_rows(axis, tables: list[dict], sizes=(), looks=(), fontsize: float = 7):
    """Draw tables {label: (value, interval or None)}, a row for each label, with the dots of a row below each
    other. sizes: {label: n}, to show beside the label. looks: (colour, hollow) for each table;
    without it each table has a colour of its own."""
    looks = looks or [(f"C{i}", False) for i in range(len(tables))]
    labels = {}  # an ordered set: tables may lack rows that others have
    for table in tables:
        labels |= table
    for row, label in enumerate(labels):
        dots = [(table[label], look) for table, look in zip(tables, looks) if label in table]
        for i, ((value, interval), (colour, hollow)) in enumerate(dots):
            y = 0.35 - row - 0.7 * (i + 0.5) / len(dots)  # 0.3 stay free between rows
            if interval:
                axis.plot(interval, [y, y], color=colour, linewidth=1.2)
            inside = "white" if hollow else colour
            axis.plot(float(value), y, "o", color=colour, markersize=5, markerfacecolor=inside)
    names = [label[:40] + (f" ({sizes[label]:,})" if label in sizes else "") for label in labels]
    axis.set_yticks(range(0, -len(names), -1), names, fontsize=fontsize)
    axis.set_ylim(-len(names) + 0.3, 0.7)
    axis.grid(alpha=0.3)


def further_file(out: Path, name: str) -> Path:
    """The file of a further picture, named after the first one."""
    return out.with_name(f"{out.stem}_{name}.png")


def finish(figure, out: Path, dpi: int = 120) -> Path:
    """Write a figure to a file, free its memory, and return the file's name."""
    if out.exists():
        regular(out)
    figure.tight_layout()
    figure.savefig(out, dpi=dpi)
    pyplot().close(figure)
    return out
