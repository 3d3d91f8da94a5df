"""Files and streams into ``market.*`` and ``sentiment.*``, and the simulator."""
