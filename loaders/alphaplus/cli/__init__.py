"""The command line: ``alphaplus migrate | load | simulate | demo | docs``."""
