"""What a text is made of: shared by loaders, server and trainer, so that all read it alike."""
