"""Message passing and what it stands on, shared by the systems."""
