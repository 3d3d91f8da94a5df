"""Stored vectors: written, packed into blocks, read and joined."""
