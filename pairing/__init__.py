"""Who is who: identities, pairing, and the encryption that follows. No I/O but files."""
