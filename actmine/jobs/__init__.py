"""The command line: parses, has a command of `actmine.commands` carried out, shows its answer and ends."""
