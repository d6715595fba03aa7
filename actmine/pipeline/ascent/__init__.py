"""Gradient ascent: draws the picture that a unit prefers, for all units of a layer together."""
