"""Synthetic gradients without labels: what the options do for them, and where their limit lies."""
