"""Who may ask: keys of the proxy's own, what they may, and which web pages may not."""
