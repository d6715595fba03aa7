"""What MODEL means: a network, its weights, its inside, and the layers that can be read."""
