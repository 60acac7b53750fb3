"""The figures of a record: their numbers as JSON, their SVG files, and how the arms look."""
