"""Users' feature sets written in SQL: checked, run and audited."""
