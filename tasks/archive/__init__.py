"""The archive: it keeps removed messages and puts them back."""
