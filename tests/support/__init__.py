"""What several test files use: reference implementations, inputs, and processes to run in."""
