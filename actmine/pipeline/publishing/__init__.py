"""A run made ready for others: its tables without this machine's places, its atlas as files, a card; and where to."""
