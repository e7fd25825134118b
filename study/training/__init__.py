"""One run: a network and batches in, a stream of evaluations and a word error rate out."""
