"""What does each unit of a vision network respond to? Maximal-activation mining at dataset scale."""
