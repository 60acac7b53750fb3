"""The pipeline engine against its rivals: same stages, same ranks, same data, blocks in turn."""
