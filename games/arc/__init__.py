"""ARC by programs."""
