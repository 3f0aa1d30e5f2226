"""Experiments that gained little here. They follow the published systems."""
