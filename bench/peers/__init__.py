"""Other replicated logs on the same work: installed, started on loopback, driven and compared."""
