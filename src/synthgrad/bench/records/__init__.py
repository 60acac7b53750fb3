"""What a run leaves: folders of JSON, appended to and read back."""
