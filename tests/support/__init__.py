"""What several test files share: reference implementations, inputs, and processes."""
