"""Waiting for messages: the checks of a wait, the wake-ups, and the calls that go to Redis at a time."""
