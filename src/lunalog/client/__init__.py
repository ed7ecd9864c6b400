"""The client: one journal object a process leads and follows streams with."""
