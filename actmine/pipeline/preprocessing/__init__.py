"""From the bytes of an image to what a network is given, and boxes of it back to the original pixels."""
