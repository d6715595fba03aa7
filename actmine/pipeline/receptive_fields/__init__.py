"""Which pixels of the input can change one position of a layer, found by following them."""
