"""Where the numbers of a model come from: drawn from a seed, or read from a file."""
