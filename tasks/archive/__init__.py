"""Where removed messages are kept, and how they come back."""
