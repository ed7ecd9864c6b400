"""Frames, messages, handshake and connections: what travels between nodes."""
