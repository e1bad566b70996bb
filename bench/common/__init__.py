"""What several measurements use: rows, the machine's description, photographs and engines."""
