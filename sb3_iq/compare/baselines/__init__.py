"""The algorithms that are compared, each a function of a task, settings and evaluations."""
