"""Decides what an emitted file says: a class for each block, its arguments, the text of its statements as trees."""
