"""What a study measures beyond its scores, each on the cells that it names."""
