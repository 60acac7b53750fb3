"""What a rank has learned, put into files, taken from them, and shared with the other ranks."""
