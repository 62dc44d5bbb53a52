"""The server as it listens: its protocol, its signals, its beginning and its end."""
