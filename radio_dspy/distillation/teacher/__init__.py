"""The teacher: signals, their fusion, and the ranking that results."""
