"""Waiting for messages: who waits for what, what wakes them, and how many calls go to Redis at a time."""
