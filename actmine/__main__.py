"""`python -m actmine COMMAND`: the command line."""

from actmine.jobs.__main__ import main

if __name__ == "__main__":
    main()
