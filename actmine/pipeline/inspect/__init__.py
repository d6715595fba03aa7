"""One picture through a whole network: maps, the units that stand out, what decides for a class."""
