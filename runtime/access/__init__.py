"""Who may call: levels of methods, callers, tokens, and the credential of the shop's own processes."""
