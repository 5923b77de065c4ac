"""The room of identity: the provider, its tokens, and what encrypts secrets in the metadata. Knows no HTTP API."""
