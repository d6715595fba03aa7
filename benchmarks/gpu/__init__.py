"""What mining costs on a GPU, in parts that can be run alone; see `__main__`."""
