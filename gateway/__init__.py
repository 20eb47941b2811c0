"""Order entry: client sessions over TCP, what they may send, and the way from there to the matchers."""
