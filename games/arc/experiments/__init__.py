"""What was asked for and gained little here. Delete this folder, and every default still works."""
