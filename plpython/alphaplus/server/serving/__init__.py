"""Models in the server: loaded, kept and asked."""
