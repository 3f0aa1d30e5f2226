"""Methods that gained little here but were asked for. Without this folder every default still works."""
