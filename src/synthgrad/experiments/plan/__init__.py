"""What a pipeline would gain on stages and links that are not here, by simulation."""
