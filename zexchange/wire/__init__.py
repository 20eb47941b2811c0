"""The wire protocol: messages, framing, signatures and sessions. No socket, clock or event loop in here."""
