"""The ledger: what we know, in one database. Facts and the state that follows from them commit together."""
