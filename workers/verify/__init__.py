"""``roadstream verify``: reads ledgers and topics, and has them compared."""
