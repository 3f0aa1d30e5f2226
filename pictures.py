"""What every picture needs: matplotlib without a screen, names of files, and writing them.

plots.py draws runs; the pictures of a game are in its folder, in plots.py."""


def pyplot():
    """matplotlib.pyplot, made to draw into files. ValueError with the pip command where it is missing."""
    try:
        import matplotlib
    except ImportError as error:
        raise ValueError("plots need matplotlib: pip install matplotlib") from error
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    return plt


def beside(out, name):
    """The Path of a further picture."""
    return out.with_name(f"{out.stem}_{name}.png")


def finish(figure, out, dpi=120):
    """Write a figure to a file, free its memory, and return the file's name."""
    figure.tight_layout()
    figure.savefig(out, dpi=dpi)
    pyplot().close(figure)
    return out
