"""All that knows Redis: how the chat is stored, and how to reach it."""
