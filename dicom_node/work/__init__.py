"""Work: the reconciler derives what is due from the ledger; the engine runs it durably."""
