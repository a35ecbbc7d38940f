"""What is in the chat, and whether cleaning keeps up."""
