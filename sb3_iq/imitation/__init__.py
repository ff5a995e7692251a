"""What the `imitation` library can use of a model; the modules here import that library."""
