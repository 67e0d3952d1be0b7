"""Prints Python trees in the form that `ruff format` leaves unchanged."""
