"""What the proxy tells of itself: metrics, spans, logs."""
