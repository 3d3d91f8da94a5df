"""The market as a reader sees it: revisions of buckets and rows, as known at any time."""
