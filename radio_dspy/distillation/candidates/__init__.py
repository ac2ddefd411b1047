"""Which rerankers a program holds, and which passages reach them."""
