"""The images that won: their boxes, crops, gradients and the part of a box that matters."""
