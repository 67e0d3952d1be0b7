"""Proves an emitted text: held to a closed list, then executed on symbolic tensors and compared with the graph."""
