"""`python -m honestproxy`."""

from honestproxy.cli import main

if __name__ == "__main__":
    main()
