"""The kind ``analysis``: says of one ended trial why it came out as it did, and whether that is the agent's doing."""
