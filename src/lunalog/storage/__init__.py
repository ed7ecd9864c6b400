"""The durable half of a journal server: log, index, checkpoint, identity, and the disk seam."""
