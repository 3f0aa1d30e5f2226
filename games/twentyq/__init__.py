"""20 Questions."""
