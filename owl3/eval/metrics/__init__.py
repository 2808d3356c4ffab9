"""Scores as pure functions, each agreeing with its benchmark's official scorer to the last printed digit."""
