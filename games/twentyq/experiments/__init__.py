"""What gained little here and is kept as the published systems did it."""
