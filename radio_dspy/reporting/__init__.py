"""A run's result as one page to read, made from the files of its folder."""
