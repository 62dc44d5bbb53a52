"""What became of requests: the last in memory, all in a store; no text unless wanted."""
