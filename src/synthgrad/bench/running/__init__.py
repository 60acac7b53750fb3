"""Training with the clock running: arms, plans, runs, and the blocks of interleaved timing."""
