"""Identity: the provider, its tokens, and the encryption of secrets in the metadata; independent of the HTTP API."""
