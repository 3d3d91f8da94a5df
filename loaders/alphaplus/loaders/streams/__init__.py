"""Live streams: from an exchange's websocket to committed rows.

``venue`` is what an exchange is (one file each), ``connection`` keeps a socket open, ``spool``
keeps what came in until it is stored, ``contiguity`` sees what is missing, ``batch`` stores,
``recording`` keeps and replays raw frames, ``stream`` puts them together and fills holes by REST.
"""
