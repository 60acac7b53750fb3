"""Jaderberg et al. 2017: the experiments."""
