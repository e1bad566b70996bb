"""What each kernel needs: registers, bytes, operations, shapes of blocks."""
