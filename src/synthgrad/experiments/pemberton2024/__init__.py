"""Pemberton & Costa 2024: synthetic gradients learned with traces, BP(lambda)."""
