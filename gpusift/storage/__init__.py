"""Files that are written whole or not at all, and sets of names larger than memory."""
