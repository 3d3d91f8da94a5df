"""Files and streams into ``market.*`` and ``sentiment.*``, the simulator, and the applier."""
