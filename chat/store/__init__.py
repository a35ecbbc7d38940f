"""The chat in Redis: its keys and scripts, and the clients that reach it."""
