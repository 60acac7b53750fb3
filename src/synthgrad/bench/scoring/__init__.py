"""From records to numbers: times to goals, medians with misses, ratios, verdicts, tables."""
