"""What touches the world; each module translates foreign errors at its own border."""
