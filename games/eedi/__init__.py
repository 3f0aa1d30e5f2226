"""The misconception behind a wrong answer."""
