"""Values, checks, files and errors that every other package uses."""
