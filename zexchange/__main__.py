"""`python -m zexchange`: the same as the command `zexchange`."""

from zexchange.cli.main import main

if __name__ == "__main__":
    main()
