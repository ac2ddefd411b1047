"""Find a program's rerankers and the passages that reach them."""
