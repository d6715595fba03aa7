"""The activation atlas: drawn positions of a layer laid out, gridded, and the mean direction of each cell drawn."""
