"""`python -m jobs COMMAND` in a checkout: the command line, which is called `actmine` once installed."""

from actmine.jobs.__main__ import main

if __name__ == "__main__":
    main()
