"""Jaderberg et al. 2017: the experiments with feed-forward networks."""
