"""The `lunalog` command: one file a noun, nothing heavy imported before it is needed."""
