"""The Python that runs inside the server.

Modules here are plain: they import no ``plpy`` at the top and are given it by the PL/Python bodies
under ``sql/``, so that they are tested without a database.
"""

try:
    import plpy  # type: ignore[import-not-found]  # only inside of a server
except ImportError:
    pass
else:
    from alphaplus.server import errors

    errors.speak_plainly(plpy)
