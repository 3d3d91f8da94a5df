"""Feature families: declared once, computed for history and for the live edge."""
