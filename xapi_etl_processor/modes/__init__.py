"""What the function does: one module for each mode, and what their answers share."""
