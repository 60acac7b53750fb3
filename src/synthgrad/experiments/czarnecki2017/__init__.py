"""Czarnecki et al. 2017: what synthetic gradients do to convergence and to what is learned."""
