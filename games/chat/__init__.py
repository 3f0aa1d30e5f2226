"""Talking: a model learns from chats, the user's or those of a small world."""
