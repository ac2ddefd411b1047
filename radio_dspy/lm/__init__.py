"""Language models: local and hosted ones, adapters, calls, budgets."""
