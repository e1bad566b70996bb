"""Files that are written completely or not at all, and sets of names larger than memory."""
