"""What the node says of itself: logs without identity."""
