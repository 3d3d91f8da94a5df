"""What a user's SELECT may do before it runs, and which columns its outputs come from.

Three questions, answered on the syntax tree (:mod:`.syntax`; sqlglot, dialect postgres), each no
with the position of what is wrong:

* :mod:`.reading`: is it one SELECT over known relations that calls nothing volatile?
* :mod:`.ahead`: does it ask for rows after the newest (``lead``, frames that reach forward), or
  depend on the clock (:mod:`.clocks`), on who asks or on chance?
* :mod:`.columns`: which columns do its outputs come from?

It keeps nobody from the future: that a SELECT runs as a role that reads the rows of one moment
does. It says early what would not work.
"""
