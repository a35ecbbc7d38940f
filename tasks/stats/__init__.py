"""The stats of the chat and of its cleaning."""
