"""Sentiment of texts: cleaning, languages, assets, methods, and what is made of scores."""
