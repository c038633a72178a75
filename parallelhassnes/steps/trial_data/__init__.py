"""What a trial left, read from its files: its rewards, what it used and how it stands."""
