"""What a user's SELECT may do before it runs, and which columns its outputs come from.

Three questions, answered on the syntax tree (:mod:`.syntax`; sqlglot, dialect postgres), each no
with the position of what is wrong:

* :mod:`.reading`: is it one SELECT over known relations that calls nothing volatile?
* :mod:`.ahead`: could the value in a row depend on rows that happened after it? It asks when rows
  happened (:mod:`.rowtimes`), what joins and subqueries are held to (:mod:`.bounds`), which rows
  windows and groups put together (:mod:`.frames`), and what reads a clock (:mod:`.clocks`).
* :mod:`.columns`: which columns do its outputs come from?

A linter is one half; the other is ``feature.audit_lookahead``, which runs the definition on
truncated data. The linter refuses what it cannot show to be safe.
"""
