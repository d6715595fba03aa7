"""Dictionaries: directions in the space of a layer, and what makes activations of latents of a vector of it."""
